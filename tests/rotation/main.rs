//! What can happen to a log file, through the whole pipeline into a real store: nothing is lost but
//! what was destroyed before anybody could read it, nothing stands there twice, and a gap is
//! declared where something was destroyed and nowhere else.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod content;
mod destruction;
mod hanging;
mod late;
mod logrotate;
mod lost_cursor;
mod places;
mod story;
