//! Every route of the server, and who may have what from it.

/// Who may read a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody: it holds nothing of any tenant.
    Public,
    /// Operators, and tenants as far as it is theirs.
    Tenant,
    /// The same as a page: a stranger is led to where to sign in.
    Page,
    /// Where strangers sign in; others are led away from it.
    SignIn,
    /// Operators.
    Operator,
    /// It is not read.
    Unreadable,
}

impl Access {
    /// The statuses without a valid token.
    pub fn to_nobody(self) -> &'static [u16] {
        match self {
            Self::Public => &[200, 204, 307, 303, 404],
            Self::Tenant | Self::Operator => &[401],
            Self::Page => &[303, 307, 401],
            Self::SignIn => &[200],
            Self::Unreadable => &[405],
        }
    }

    /// The statuses for a recorder.
    pub fn to_recorder(self) -> &'static [u16] {
        match self {
            Self::Tenant | Self::Operator => &[403],
            Self::Page | Self::SignIn => &[303, 307, 401, 403],
            other => other.to_nobody(),
        }
    }

    /// The statuses for a tenant.
    pub fn to_tenant(self) -> &'static [u16] {
        match self {
            Self::Tenant => &[200, 404],
            Self::Operator => &[403],
            Self::Page | Self::SignIn => &[200, 303, 307, 404],
            other => other.to_nobody(),
        }
    }

    /// The statuses for an operator.
    pub fn to_operator(self) -> &'static [u16] {
        match self {
            Self::Tenant | Self::Operator => &[200, 404],
            other => other.to_tenant(),
        }
    }
}

/// One route.
pub struct Route {
    /// As the router has it.
    pub path: &'static str,
    /// A path that it matches.
    pub example: &'static str,
    /// Who may read it.
    pub access: Access,
    /// Whether it takes the filter of the list.
    pub takes_filter: bool,
    /// What else it takes.
    pub parameters: &'static [&'static str],
    /// What it must be given.
    pub always: &'static str,
    /// Whether its answer does not end.
    pub is_endless: bool,
}

const fn route(path: &'static str, access: Access) -> Route {
    Route {
        path,
        example: path,
        access,
        takes_filter: false,
        parameters: &[],
        always: "",
        is_endless: false,
    }
}

/// What the page's addresses take beside the filter.
const OF_THE_PAGE: &[&str] = &["limit", "before", "range", "tz", "kept"];

/// All of them.
pub const ROUTES: &[Route] = &[
    route("/healthz", Access::Public),
    route("/readyz", Access::Public),
    route("/metrics", Access::Public),
    Route {
        takes_filter: true,
        parameters: &["limit", "before"],
        ..route("/api/v1/events", Access::Tenant)
    },
    Route {
        example: "/api/v1/events/0000000000000001",
        ..route("/api/v1/events/{id}", Access::Tenant)
    },
    Route {
        takes_filter: true,
        parameters: &["buckets", "limit"],
        ..route("/api/v1/events/histogram", Access::Tenant)
    },
    Route {
        takes_filter: true,
        parameters: &["limit", "beats"],
        is_endless: true,
        ..route("/api/v1/events/stream", Access::Tenant)
    },
    Route {
        takes_filter: true,
        parameters: &["format"],
        always: "format=ndjson",
        ..route("/api/v1/export", Access::Tenant)
    },
    route("/api/v1/sources", Access::Operator),
    route("/", Access::Page),
    route("/audit/", Access::Page),
    Route {
        takes_filter: true,
        parameters: OF_THE_PAGE,
        ..route("/audit", Access::Page)
    },
    Route {
        takes_filter: true,
        parameters: OF_THE_PAGE,
        ..route("/audit/histogram", Access::Page)
    },
    Route {
        example: "/audit/events/0000000000000001",
        ..route("/audit/events/{id}", Access::Page)
    },
    route("/audit/sign-in", Access::SignIn),
    route("/audit/sign-out", Access::Unreadable),
    Route {
        example: "/audit/assets/0/none",
        ..route("/audit/assets/{version}/{name}", Access::Public)
    },
    Route {
        example: "/audit/nothing",
        ..route("/audit/{*path}", Access::Page)
    },
];
