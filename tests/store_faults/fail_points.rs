//! Single commands that fail inside the server.
