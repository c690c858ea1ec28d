//! What a walk stores between its steps.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::list::RowKey;

/// What is left to read below an anchor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// Everything down to this row is durable.
    pub below: RowKey,
    /// Rows older than this are known from before; none: to the very end.
    pub down_to: Option<Timestamp>,
    /// Where in the list that row was when it was read: a hint.
    #[serde(default)]
    pub index: u64,
}

/// The part of the cursor that only the walk understands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WalkCursor {
    /// The newest `created` at the last full head.
    pub high_water: Option<Timestamp>,
    /// Unfinished walks, the newest last; the first is a full head's, the others are brief ones'.
    pub gaps: Vec<Gap>,
    /// The newest `created` at the last brief head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh: Option<Timestamp>,
}
