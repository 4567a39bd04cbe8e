//! Against `h2` and hyper as peers, over pipes in memory.
