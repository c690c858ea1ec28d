//! Real MongoDB servers: standalone, replica set, frozen, killed, brought back.
//!
//! Each listens on loopback in a directory of its own and dies with the test process, however that
//! ends: a watchdog holds a pipe whose other end the test process has, and clears up when it breaks.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Document, doc};
use mongodb::options::ClientOptions;
use mongodb::{Client, Database};
use tokio::sync::OnceCell;

use crate::process::free_port;
use crate::world::eventually;

/// The longest a server may take to answer after its start.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The longest that a look at a server waits for its answer.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// How often a server is started again because its port was taken meanwhile.
const PORT_ATTEMPTS: u32 = 5;

/// The path of a usable mongod, fetched by `scripts/mongod.sh` on the first call.
///
/// # Errors
/// What the script says when there is none.
pub fn mongod_path() -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/mongod.sh");
    let output = Command::new("bash")
        .arg(&script)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {}", script.display()))?;
    ensure!(
        output.status.success(),
        "no mongod: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let path = String::from_utf8(output.stdout).context("the path of mongod is no UTF-8")?;
    Ok(PathBuf::from(path.trim_end()))
}

/// One mongod of a test's own; killed on drop.
#[derive(Debug)]
pub struct Mongod {
    binary: PathBuf,
    memory: Memory,
    arguments: Vec<String>,
    directory: PathBuf,
    port: u16,
    running: Mutex<Option<Running>>,
}

/// What a server may use for its cache.
#[derive(Clone, Copy, Debug)]
enum Memory {
    /// Little: tests run many at once.
    Little,
    /// What MongoDB takes by itself, half of the machine's.
    AsItComes,
}

/// The server's process and the watchdog that outlives this one.
#[derive(Debug)]
struct Running {
    server: Child,
    watchdog: Child,
}

impl Mongod {
    /// Starts a standalone server.
    ///
    /// # Panics
    /// When there is no server to start or it does not answer.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server with more arguments, `--setParameter enableTestCommands=1` say.
    ///
    /// # Panics
    /// When there is no server to start or it does not answer.
    pub async fn start_with(arguments: &[&str]) -> Self {
        Self::try_start(Memory::Little, arguments)
            .await
            .expect("a mongod for the test")
    }

    /// Starts a standalone server with a cache as MongoDB chooses it, to measure with.
    ///
    /// # Panics
    /// When there is no server to start or it does not answer.
    pub async fn start_as_it_comes() -> Self {
        Self::try_start(Memory::AsItComes, &[])
            .await
            .expect("a mongod to measure with")
    }

    /// The server that the tests of one binary share; each takes a database of its own.
    /// A test that disturbs it, or needs other arguments, starts another.
    ///
    /// # Panics
    /// When there is no server to start or it does not answer.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Mongod> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    async fn try_start(memory: Memory, arguments: &[&str]) -> Result<Self> {
        static BINARY: OnceCell<PathBuf> = OnceCell::const_new();
        let find = || async { tokio::task::spawn_blocking(mongod_path).await? };
        let binary = BINARY.get_or_try_init(find).await?.clone();
        let directory = tempfile::Builder::new()
            .prefix("daybook-mongod-")
            .tempdir()?;
        let mut mongod = Self {
            binary,
            memory,
            arguments: arguments
                .iter()
                .map(|&argument| argument.to_owned())
                .collect(),
            directory: directory.keep(),
            port: 0,
            running: Mutex::new(None),
        };
        for attempt in 1.. {
            mongod.port = free_port();
            match mongod.launch().await {
                Ok(()) => break,
                Err(error) if attempt == PORT_ATTEMPTS => return Err(error),
                Err(_) if mongod.log().contains("Address already in use") => {}
                Err(error) => return Err(error),
            }
        }
        Ok(mongod)
    }

    /// A URL for this server alone, also when it is a member of a replica set.
    pub fn url(&self, database: &str) -> String {
        format!(
            "mongodb://127.0.0.1:{}/{database}?directConnection=true",
            self.port
        )
    }

    /// The program that runs.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's process id.
    ///
    /// # Panics
    /// When it was killed.
    pub fn pid(&self) -> u32 {
        let running = self.lock();
        running.as_ref().expect("mongod is running").server.id()
    }

    /// A client's view of a database, to look at what was stored and to break things.
    ///
    /// # Panics
    /// When the client cannot be made.
    pub async fn database(&self, name: &str) -> Database {
        database(&self.url(name), name)
            .await
            .expect("a client for mongod")
    }

    /// Stops it in its tracks: connections stay open and nobody answers.
    ///
    /// # Panics
    /// When it is not running.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// When it is not running.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Ends it without any chance to tidy up.
    pub fn kill9(&self) {
        if let Some(mut running) = self.lock().take() {
            running.end();
        }
    }

    /// Starts it again on the same port and directory, killing it first if it still runs.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn restart(&self) {
        self.kill9();
        self.launch().await.expect("mongod starts again");
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        let status = status.expect("kill can be run");
        assert!(status.success(), "no {name} for mongod {pid}");
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn launch(&self) -> Result<()> {
        let data = self.directory.join("data");
        match std::fs::create_dir(&data) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
        let output = File::create(self.directory.join("log"))?;
        let cache: &[&str] = match self.memory {
            Memory::Little => &["--wiredTigerCacheSizeGB", "0.25"],
            Memory::AsItComes => &[],
        };
        let server = Command::new(&self.binary)
            .arg("--dbpath")
            .arg(&data)
            .args(["--bind_ip", "127.0.0.1", "--port", &self.port.to_string()])
            .arg("--nounixsocket")
            .args(cache)
            .args(["--setParameter", "diagnosticDataCollectionEnabled=false"])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("start {}", self.binary.display()))?;
        let watchdog = watchdog(server.id(), &self.directory);
        *self.lock() = Some(Running {
            server,
            watchdog: watchdog?,
        });
        self.answers().await
    }

    /// Waits until it answers, or has ended.
    async fn answers(&self) -> Result<()> {
        let admin = database(&self.url("admin"), "admin").await?;
        let answered = async {
            loop {
                // One attempt waits for the server by itself; the loop looks whether there is one.
                let ping = admin.run_command(doc! { "ping": 1 });
                if let Ok(Ok(_)) = tokio::time::timeout(PROBE_LIMIT, ping).await {
                    return Ok(());
                }
                let ended = match self.lock().as_mut() {
                    Some(running) => running.server.try_wait()?,
                    None => bail!("mongod was killed while it started"),
                };
                if let Some(status) = ended {
                    bail!("mongod ended with {status}: {}", self.log());
                }
            }
        };
        match tokio::time::timeout(START_LIMIT, answered).await {
            Ok(answered) => answered,
            Err(_) => bail!("mongod does not answer: {}", self.log()),
        }
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        self.kill9();
        // A leftover in the temporary directory harms nobody.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Running {
    fn end(&mut self) {
        // A word before the pipe closes tells the watchdog that the directory is still wanted.
        if let Some(mut pipe) = self.watchdog.stdin.take() {
            let _ = pipe.write_all(b"keep\n");
        }
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = self.watchdog.wait();
    }
}

/// Kills the server as soon as this process is gone or speaks; the directory goes only in the
/// first case, since a server that was killed may be started again.
fn watchdog(server: u32, directory: &Path) -> Result<Child> {
    const SCRIPT: &str = r#"
        trap '' INT HUP TERM
        read -r keep
        kill -s KILL "$1" 2>/dev/null
        [ -n "$keep" ] || rm -rf "$2"
    "#;
    Command::new("sh")
        .args(["-c", SCRIPT, "mongod-watchdog"])
        .arg(server.to_string())
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start the watchdog of mongod")
}

async fn database(url: &str, name: &str) -> Result<Database> {
    let mut options = ClientOptions::parse(url).await?;
    options.server_selection_timeout = Some(Duration::from_secs(30));
    Ok(Client::with_options(options)?.database(name))
}

/// Which run of which server answers; `None`: none does.
pub async fn server_run(database: &Database) -> Option<ObjectId> {
    let hello = tokio::time::timeout(PROBE_LIMIT, database.run_command(doc! { "hello": 1 })).await;
    let hello = hello.ok()?.ok()?;
    let version = hello.get_document("topologyVersion").ok()?;
    version.get_object_id("processId").ok()
}

/// Whether what was read from this run of a server outlasts its SIGKILL: a write behind it is in the
/// journal, of a majority where there are several servers. A server shows what it may yet lose.
pub async fn outlasts(database: &Database, run: Option<ObjectId>) -> bool {
    let write = doc! {
        "update": "probe",
        "updates": [{ "q": { "_id": 1 }, "u": { "$inc": { "looks": 1 } }, "upsert": true }],
        "writeConcern": { "w": "majority", "j": true, "wtimeout": 1000 },
    };
    let written = tokio::time::timeout(PROBE_LIMIT, database.run_command(write)).await;
    let is_synced = matches!(written, Ok(Ok(answer)) if !answer.contains_key("writeConcernError"));
    is_synced && run.is_some() && server_run(database).await == run
}

/// A replica set whose members run on this machine and elect quickly.
#[derive(Debug)]
pub struct ReplicaSet {
    /// The members, in the order of their ids.
    pub members: Vec<Mongod>,
}

impl ReplicaSet {
    /// Its name.
    pub const NAME: &'static str = "rs0";

    /// Starts `size` members and waits for a primary.
    ///
    /// # Panics
    /// When a member does not start or none is elected.
    pub async fn start(size: usize) -> Self {
        Self::start_with(size, &[]).await
    }

    /// As [`ReplicaSet::start`], with more arguments for each member.
    ///
    /// # Panics
    /// When a member does not start or none is elected.
    pub async fn start_with(size: usize, arguments: &[&str]) -> Self {
        let arguments = [&["--replSet", Self::NAME, "--oplogSize", "64"], arguments].concat();
        let starts = (0..size).map(|_| Mongod::start_with(&arguments));
        let members = futures_util::future::join_all(starts).await;
        let set = Self { members };
        set.initiate().await.expect("the replica set is initiated");
        set.primary().await;
        set
    }

    /// A URL that finds the primary by itself.
    pub fn url(&self, database: &str) -> String {
        let hosts = self
            .members
            .iter()
            .map(|member| format!("127.0.0.1:{}", member.port));
        let hosts = hosts.collect::<Vec<_>>().join(",");
        format!("mongodb://{hosts}/{database}?replicaSet={}", Self::NAME)
    }

    /// A URL for whichever member is primary now, and for it alone.
    ///
    /// # Panics
    /// When none is elected.
    pub async fn primary_url(&self, database: &str) -> String {
        self.primary().await.url(database)
    }

    /// The member that is primary now, waiting for an election if need be.
    ///
    /// # Panics
    /// When none is elected.
    pub async fn primary(&self) -> &Mongod {
        let port = tokio::time::timeout(START_LIMIT, self.primary_port()).await;
        let port = port.expect("an elected primary");
        let found = self.members.iter().find(|member| member.port == port);
        found.expect("the primary is a member")
    }

    /// Waits until a write of a majority succeeds.
    ///
    /// # Panics
    /// When none does in time.
    pub async fn takes_writes(&self) {
        let database = self.database("probe").await;
        let write = doc! {
            "insert": "probe",
            "documents": [{}],
            "writeConcern": { "w": "majority", "j": true, "wtimeout": 1000 },
        };
        let written = async {
            loop {
                let answer = database.run_command(write.clone()).await;
                if answer.is_ok_and(|answer| !answer.contains_key("writeConcernError")) {
                    return;
                }
            }
        };
        let written = tokio::time::timeout(START_LIMIT, written).await;
        written.expect("a write of a majority");
    }

    /// Makes the primary step down until another one is elected.
    ///
    /// # Panics
    /// When none is.
    pub async fn step_down(&self) {
        let former = self.primary().await.port;
        eventually("another primary", async || {
            let primary = self.primary().await;
            if primary.port == former {
                let command = doc! { "replSetStepDown": 30, "force": true };
                // It refuses when it is none any more.
                let _refused = primary.database("admin").await.run_command(command).await;
            }
            primary.port != former
        })
        .await;
    }

    /// A client's view of a database, through the primary.
    ///
    /// # Panics
    /// When the client cannot be made.
    pub async fn database(&self, name: &str) -> Database {
        database(&self.url(name), name)
            .await
            .expect("a client for the set")
    }

    async fn initiate(&self) -> Result<()> {
        let members = self.members.iter().zip(0_i32..);
        let members: Vec<Document> = members
            .map(|(member, id)| doc! { "_id": id, "host": format!("127.0.0.1:{}", member.port) })
            .collect();
        let settings = doc! { "electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 250 };
        let config = doc! { "_id": Self::NAME, "members": members, "settings": settings };
        let first = self.members.first().context("a replica set has members")?;
        let admin = first.database("admin").await;
        admin
            .run_command(doc! { "replSetInitiate": config })
            .await?;
        Ok(())
    }

    async fn primary_port(&self) -> u16 {
        let admin = self.database("admin").await;
        loop {
            let hello = admin.run_command(doc! { "hello": 1 }).await;
            let hello = hello.unwrap_or_default();
            // The one that is selected may have stepped down since.
            if hello.get_bool("isWritablePrimary").unwrap_or(false) {
                let me = hello.get_str("me").unwrap_or_default();
                let port = me.rsplit(':').next().and_then(|port| port.parse().ok());
                return port.expect("a member tells its address");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
