//! How many files and connections may be open at once.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::HttpConfig;

/// Left to files, the store and the sources, however many connect.
const RESERVED: u64 = 256;

/// As [`fit`], and warns where it is fewer.
pub(super) fn fit_at_start(http: &mut HttpConfig) {
    if fit(http) {
        tracing::warn!(
            max_connections = http.max_connections,
            max_streams = http.max_streams,
            "few files may be open here (RLIMIT_NOFILE): fewer connections than http.max_connections are accepted"
        );
    }
}

/// Lets as many files be open as this process may, and lowers the limits of connections where even
/// those are too few; whether it does.
pub(super) fn fit(http: &mut HttpConfig) -> bool {
    let mut limit = getrlimit(Resource::Nofile);
    // Under the unit they are the same, and a change of limits is not allowed.
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            ..limit
        };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            limit = raised;
        }
    }
    lower(http, limit.current.unwrap_or(u64::MAX))
}

fn lower(http: &mut HttpConfig, open_files: u64) -> bool {
    let most = open_files.saturating_sub(RESERVED).max(open_files / 2);
    let wanted = u64::from(http.max_connections);
    if wanted <= most {
        return false;
    }
    http.max_connections = most as u32;
    // Readers of the stream leave a quarter to senders.
    http.max_streams = http.max_streams.min((most - most / 4) as u32);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_to_the_others() {
        for (open_files, lowered, connections, streams) in [
            (u64::MAX, false, 4096, 1000),
            (65_536, false, 4096, 1000),
            (4352, false, 4096, 1000),
            (4351, true, 4095, 1000),
            (1024, true, 768, 576),
            (300, true, 150, 113),
        ] {
            let mut http = HttpConfig::default();
            assert_eq!(lower(&mut http, open_files), lowered, "{open_files}");
            let limits = (http.max_connections, http.max_streams);
            assert_eq!(limits, (connections, streams), "{open_files}");
        }
    }
}
