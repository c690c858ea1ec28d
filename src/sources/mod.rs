//! The four kinds of source, each in its folder: `actor`, `client` or `signature`, `decode`,
//! `verbs`; and what they share: the way downstream and the acceptor of pushed events.

pub mod authentik;
pub mod courier;
pub mod drainer;
mod gap;
pub mod ocis;
pub mod push;
pub mod recorder;
pub mod stalwart;
pub mod text;
