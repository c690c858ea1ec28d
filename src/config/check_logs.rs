//! The logs that sources read: each by one of them only, however it is named.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::SourceConfig;
use super::section::Report;
use super::tree::quote;
use crate::tail::is_part_of;

/// A disk that does not answer keeps no other source from starting.
const PATIENCE: Duration = Duration::from_secs(1);

/// A log as it is named, and as the system finds it.
struct Log<'a> {
    index: usize,
    path: &'a Path,
    /// From the root on, as it is named and where links lead.
    places: Vec<PathBuf>,
    file: Option<FileId>,
}

/// Device and inode.
type FileId = (u64, u64);

pub(super) fn check(sources: &[(usize, SourceConfig)], report: &mut Report) {
    let named = sources.iter().filter_map(|(index, source)| match source {
        // A missing path is reported already.
        SourceConfig::Ocis(ocis) if !ocis.path.as_os_str().is_empty() => {
            Some((*index, ocis.path.as_path()))
        }
        _ => None,
    });
    let named: Vec<(usize, &Path)> = named.collect();
    if named.len() < 2 {
        return;
    }
    let logs: Vec<Log<'_>> = named
        .into_iter()
        .map(|(index, path)| Log::find(index, path))
        .collect();
    for (at, log) in logs.iter().enumerate() {
        let earlier = &logs[..at];
        let key = format!("sources[{}].path", log.index);
        let shown = quote(&log.path.to_string_lossy());
        if let Some(first) = earlier.iter().find(|other| log.is(other)) {
            let found = format!("{shown}, the log of sources[{}] too", first.index);
            let wanted = "a log of its own: two sources would enter its events twice";
            report.add(&key, found, wanted);
        } else if let Some(first) = earlier.iter().find(|other| log.is_near(other)) {
            let other = quote(&first.path.to_string_lossy());
            let found = format!("{shown}: it or {other} is named as a part of the other");
            let wanted = "another name or directory: its events would be entered twice";
            report.add(&key, found, wanted);
        }
    }
}

impl<'a> Log<'a> {
    fn find(index: usize, path: &'a Path) -> Self {
        let named = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let sought = named.clone();
        let (tell, told) = mpsc::channel();
        let _detached = thread::Builder::new().spawn(move || {
            // Fails when it comes too late.
            let _late = tell.send(look(&sought));
        });
        let (real, file) = told.recv_timeout(PATIENCE).unwrap_or_default();
        Self {
            index,
            path,
            places: std::iter::once(named).chain(real).collect(),
            file,
        }
    }

    fn is(&self, other: &Self) -> bool {
        let is_one_file = self.file.is_some() && self.file == other.file;
        is_one_file || self.places.iter().any(|at| other.places.contains(at))
    }

    fn is_near(&self, other: &Self) -> bool {
        self.has_as_part(other) || other.has_as_part(self)
    }

    fn has_as_part(&self, other: &Self) -> bool {
        self.places.iter().any(|at| {
            // Where a link leads, a part may be named after the link.
            let after_link = self.path.file_name().map(|name| at.with_file_name(name));
            let is_part = |file: &PathBuf| {
                is_part_of(at, file) || after_link.as_ref().is_some_and(|at| is_part_of(at, file))
            };
            other.places.iter().any(is_part)
        })
    }
}

/// Where a log really is, and which file that is. It need not be there yet, as its directory may be.
fn look(path: &Path) -> (Option<PathBuf>, Option<FileId>) {
    let file = path.metadata().ok();
    let real = path.canonicalize().ok().or_else(|| {
        let directory = path.parent()?.canonicalize().ok()?;
        Some(directory.join(path.file_name()?))
    });
    (real, file.map(|found| (found.dev(), found.ino())))
}
