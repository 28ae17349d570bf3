"""Operations stopped at each of their steps, and what must hold afterwards."""
