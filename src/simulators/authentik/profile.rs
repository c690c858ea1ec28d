//! What differs between the versions of Authentik, and what a token may do.

/// A group of versions that answer alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// Up to 2023.10: `tenant` in place of `brand`, no request ids, and of a log-in that failed the
    /// anonymous user.
    V2023,
    /// 2024.2 to 2025.6.
    V2024,
    /// 2025.8 to 2025.10: knows `actions`, sends `autocomplete`.
    V2025_8,
    /// 2025.12 to 2026.2: pages of 20, at most 100.
    #[default]
    V2025_12,
    /// 2026.5 and later: `search` understands comparisons.
    V2026_5,
}

/// Rows a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageSizes {
    pub(super) default: usize,
    pub(super) max: usize,
}

impl Profile {
    /// The key of the brand in an event.
    pub fn tenant_key(self) -> &'static str {
        if self == Self::V2023 {
            "tenant"
        } else {
            "brand"
        }
    }

    pub(super) fn version(self) -> &'static str {
        match self {
            Self::V2023 => "2023.10.7",
            Self::V2024 => "2024.10.5",
            Self::V2025_8 => "2025.8.4",
            Self::V2025_12 => "2025.12.4",
            Self::V2026_5 => "2026.5.6",
        }
    }

    pub(super) fn page_sizes(self) -> PageSizes {
        if self < Self::V2025_12 {
            PageSizes {
                default: 100,
                max: usize::MAX,
            }
        } else {
            PageSizes {
                default: 20,
                max: 100,
            }
        }
    }

    pub(super) fn has_autocomplete(self) -> bool {
        self >= Self::V2025_8
    }

    pub(super) fn has_actions_filter(self) -> bool {
        self >= Self::V2025_8
    }

    /// The status while the server behind the router still starts.
    pub(super) fn starting_status(self) -> u16 {
        if self <= Self::V2025_8 { 502 } else { 503 }
    }
}

/// What the owner of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// `authentik_events.view_event`.
    pub view_event: bool,
    /// `authentik_core.view_user`.
    pub view_user: bool,
    /// `authentik_core.view_group`.
    pub view_group: bool,
    /// `authentik_events.delete_event`.
    pub delete_event: bool,
    /// The token of an outpost: sees an empty list in place of a refusal. So did every token
    /// without permission up to 2023.8.
    pub silently_blind: bool,
}

impl Permissions {
    /// What a reader of events that also looks users up needs.
    pub const READER: Self = Self {
        view_event: true,
        view_user: true,
        view_group: true,
        delete_event: false,
        silently_blind: false,
    };

    /// Events only.
    pub const EVENTS_ONLY: Self = Self {
        view_user: false,
        view_group: false,
        ..Self::READER
    };

    /// A valid token that may do nothing.
    pub const NONE: Self = Self {
        view_event: false,
        ..Self::EVENTS_ONLY
    };

    /// An outpost's.
    pub const OUTPOST: Self = Self {
        silently_blind: true,
        ..Self::NONE
    };
}
