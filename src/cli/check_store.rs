//! Does the store take what Daybook writes?

use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::cli::{IS_THIS_THE_SERVICES, missing_file};
use crate::config::{Config, StoreTarget};
use crate::http::auth::new_token;
use crate::store::{self, Role, Store, StoreError};
use crate::tenants;

use super::{Finding, Fine, Trouble, try_directory};

const DIRECTORY: &str =
    "the directory must be there, and it and the file belong to the user that Daybook runs as";

const CERTIFICATES: &str = "the server's certificate must be valid, for its host's name too, and of an authority that is a public one or named in ?tlsCAFile=PATH: this machine's own list is not used for MongoDB. A certificate of Daybook's own, with its key, is named in ?tlsCertificateKeyFile=PATH";

/// The store, if it can be used, and what was found.
pub(super) async fn check(config: &Config) -> (Option<Arc<dyn Store>>, Finding) {
    match missing_file(&config.store) {
        Ok(None) => {}
        Ok(Some(file)) => return (None, try_place(&file)),
        Err(error) => return (None, Err(Trouble::new(format!("{error:#}"), DIRECTORY))),
    }
    let store = match store::open(&config.store).await {
        Ok(store) => store,
        Err(error) => return (None, Err(trouble(&error, config))),
    };
    match try_store(&*store, config).await {
        Ok(fine) => (Some(store), Ok(fine)),
        Err(trouble) => (None, Err(trouble)),
    }
}

/// Of a file that is not there. It is not made: a command in the wrong directory would find it
/// afterwards, and take it for the service's.
fn try_place(file: &Path) -> Finding {
    let directory = file.parent().unwrap_or(file);
    try_directory(directory).map_err(|error| Trouble::new(error, DIRECTORY))?;
    let fine = Fine::new(format!(
        "{} is not there yet, and can be made",
        file.display()
    ));
    Ok(fine.advise(format!(
        "{IS_THIS_THE_SERVICES} Its first start makes the store"
    )))
}

async fn try_store(store: &dyn Store, config: &Config) -> Finding {
    let failed = |error: StoreError| trouble(&error, config);
    store.prepare().await.map_err(failed)?;
    store.ping().await.map_err(failed)?;
    // A write that nobody can use: a token that has expired, gone at once.
    let expired = Timestamp::now() - SignedDuration::from_hours(1);
    let name = Some("daybook check".to_owned());
    let (_, record) = new_token(Role::Recorder(None), name, Some(expired));
    store.insert_token(&record).await.map_err(failed)?;
    store.delete_token(&record.hash).await.map_err(failed)?;
    let records = tenants::read(store, config.tenants.file.clone()).await;
    let records = records.map_err(|error| {
        Trouble::new(
            format!("takes writes, but the directory of tenants cannot be read: {error}"),
            "grant the user `find` on the collections `tenants` and `users`, or name a file in tenants.file",
        )
    })?;
    let mut fine = Fine::new(format!(
        "takes writes; {} tenants and {} users in the directory",
        records.tenants.len(),
        records.users.len()
    ));
    let is_empty = records.tenants.is_empty();
    let directory = tenants::directory::Directory::new(records, &config.tenants.ignored_groups);
    for claimed in directory.contested() {
        fine = fine.advise(format!(
            "let one tenant alone claim the {claimed}: two do, so it tells none"
        ));
    }
    Ok(if is_empty {
        fine.advise("without tenants every event is entered without one: fill `tenants`, or name a file in tenants.file (docs/configuration.md)")
    } else {
        fine
    })
}

fn trouble(error: &StoreError, config: &Config) -> Trouble {
    let url = &config.store.url;
    let is_sqlite = matches!(url.target(), Ok(StoreTarget::Sqlite(_)));
    let speaks_of_certificate = error.to_string().to_lowercase().contains("certificate");
    let remedy = match error {
        _ if speaks_of_certificate && !is_sqlite => CERTIFICATES.to_owned(),
        StoreError::Unavailable(_) | StoreError::Timeout { .. } if is_sqlite => {
            "another process holds the file: one Daybook at a time; where it is damaged, restore a backup (docs/runbook.md)".to_owned()
        }
        StoreError::Unavailable(_) | StoreError::Timeout { .. } => format!(
            "is a server running at {url}, and does this machine reach it? Of a replica set name the members and ?replicaSet=NAME, and its members' own host names must resolve here"
        ),
        StoreError::Unauthorized(_) | StoreError::Other(_) if is_sqlite => DIRECTORY.to_owned(),
        StoreError::Unauthorized(_) => {
            "check user and password (a user of another database needs ?authSource=…), and grant it readWrite on this database, or the smaller role of deploy/mongodb/init.js: find, insert, update, remove, createCollection, createIndex and listIndexes on Daybook's collections, find on tenants and users".to_owned()
        }
        StoreError::Full(_) => "make room on the store's disk, and let it be writable".to_owned(),
        StoreError::Other(said) if said.starts_with("DuplicateKey ") => {
            "two documents of the collection have the same key, which is named above (an event's `source` and `externalId`): delete one of them, or give it another key".to_owned()
        }
        StoreError::Refused(_) | StoreError::Other(_) => {
            "the server does not do what Daybook needs: MongoDB 6.0 or newer, and no view or other index of the same name in the way".to_owned()
        }
    };
    Trouble::new(error.to_string(), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StoreUrl;

    #[test]
    fn who_may_not_make_the_file_is_told_of_its_directory() {
        let refused = StoreError::Unauthorized("permission denied".to_owned());
        let mut config = Config::default();
        assert_eq!(trouble(&refused, &config).remedy, DIRECTORY);
        config.store.url = StoreUrl("mongodb://127.0.0.1/daybook".to_owned());
        assert!(trouble(&refused, &config).remedy.contains("authSource"));
    }

    #[test]
    fn whose_certificate_is_refused_is_told_of_authorities() {
        let mut config = Config::default();
        config.store.url = StoreUrl("mongodb://127.0.0.1/daybook?tls=true".to_owned());
        for said in [
            "I/O error: invalid peer certificate: UnknownIssuer",
            "I/O error: received fatal alert: CertificateRequired",
        ] {
            let away = StoreError::Unavailable(said.to_owned());
            assert_eq!(trouble(&away, &config).remedy, CERTIFICATES, "{said}");
        }
        let away = StoreError::Unavailable("Connection refused".to_owned());
        assert_ne!(trouble(&away, &config).remedy, CERTIFICATES);
    }
}
