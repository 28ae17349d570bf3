"""The library against a model of it: a state machine that knows what may be true."""
