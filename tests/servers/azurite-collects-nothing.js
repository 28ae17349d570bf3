// Loaded before Azurite: ten minutes after its start it would collect what no blob uses any more, and
// answer nobody meanwhile, for a minute where there were thousands. There is no option for it.
const path = require("path");

const constants = path.join(path.dirname(process.argv[1]), "utils/constants");
require(constants).DEFAULT_GC_INTERVAL_MS = 2 ** 31 - 1; // the longest that a timer takes
