//! Secrets are masked before anything is stored or logged.
