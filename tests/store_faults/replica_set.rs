//! Three servers that elect one of them.
