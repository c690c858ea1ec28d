//! writer.
