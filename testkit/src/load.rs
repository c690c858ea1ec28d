//! A light load from all four kinds of source, every event of it promised to an [`Oracle`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use daybook::simulators::authentik::{self, FakeAuthentik, FakeAuthentikConfig};
use daybook::simulators::ocis::{self, OcisLog};
use daybook::simulators::people::People;
use daybook::simulators::platform::{self, PlatformRecorder, PlatformRecorderConfig};
use daybook::simulators::stalwart::{self, StalwartProfile, StalwartSender, StalwartSenderConfig};
use jiff::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::oracle::{KeyIn, Oracle, Promise};
use crate::whose::Whose;
use crate::world::{Plan, World};

const STALWART_KEY: &str = "load-signature-key";
/// Senders repeat as soon as this: a test has less patience than a server.
const SENDERS_PAUSE: Duration = Duration::from_millis(20);

/// The sources, by their names in the configuration.
pub const SOURCES: [&str; 4] = ["authentik", "ocis", "stalwart", "platform-api"];

/// The simulators before a Daybook runs.
pub struct Sources {
    authentik: FakeAuthentik,
    ocis: OcisLog,
    people: People,
}

/// The running load; paused at first. Stops when it is dropped.
pub struct Load {
    stage: Arc<Stage>,
    running: watch::Sender<bool>,
    _driver: JoinSet<()>,
}

struct Stage {
    sources: Sources,
    stalwart: StalwartSender,
    platform: PlatformRecorder,
    oracle: Oracle,
    whose: Whose,
    dice: Mutex<Dice>,
}

struct Dice {
    rng: StdRng,
    serial: u64,
}

impl Sources {
    /// Starts them and adds them to a world.
    ///
    /// # Panics
    /// When they cannot be started.
    pub async fn add_to(plan: Plan, seed: u64) -> (Self, Plan) {
        let people = People::new(seed);
        let authentik = FakeAuthentik::start(FakeAuthentikConfig {
            seed,
            ..FakeAuthentikConfig::default()
        })
        .await;
        authentik.add_people(&people);
        let ocis = OcisLog::new(plan.dir().join("audit.log"));
        let token = plan.file("authentik.token", authentik.token());
        let key = plan.file("stalwart.key", STALWART_KEY);
        let tenants = plan.file("directory.toml", people.tenants_toml());
        let plan = plan
            .source(&format!(
                "kind = \"authentik\"\nurl = \"{}\"\ntoken_file = \"{}\"\ninterval = \"1s\"",
                authentik.url(),
                token.display()
            ))
            .source(&format!(
                "kind = \"ocis\"\npath = \"{}\"",
                ocis.path().display()
            ))
            .source(&format!(
                "kind = \"stalwart\"\nsecret_files = [\"{}\"]",
                key.display()
            ))
            .source("kind = \"recorder\"\nname = \"platform-api\"")
            .settings(&format!("[tenants]\nfile = \"{}\"", tenants.display()));
        let sources = Self {
            authentik,
            ocis,
            people,
        };
        (sources, plan)
    }

    /// Connects the senders to a running world. Each source says about so many events a second
    /// while the load runs.
    pub fn connect(self, world: &World, seed: u64, events_per_second: f64) -> Load {
        let mut stalwart = StalwartSenderConfig::new(
            &world.url("/ingest/stalwart/webhook"),
            STALWART_KEY,
            StalwartProfile::V0_16,
        );
        stalwart.throttle = SENDERS_PAUSE;
        let mut platform = PlatformRecorderConfig::new(&world.url(""), None);
        platform.retry = SENDERS_PAUSE;
        let stage = Arc::new(Stage {
            whose: Whose::new(&self.people),
            sources: self,
            stalwart: StalwartSender::start(stalwart),
            platform: PlatformRecorder::start(platform),
            oracle: Oracle::new([
                ("authentik", KeyIn::ExternalId),
                ("ocis", KeyIn::Offset),
                ("stalwart", KeyIn::Payload),
                ("platform-api", KeyIn::ExternalId),
            ]),
            dice: Mutex::new(Dice {
                rng: StdRng::seed_from_u64(seed),
                serial: 0,
            }),
        });
        let (running, mut runs) = watch::channel(false);
        let mut driver = JoinSet::new();
        let driven = Arc::clone(&stage);
        driver.spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / events_per_second));
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while runs.wait_for(|runs| *runs).await.is_ok() {
                ticks.tick().await;
                // Held, so that nothing is said once a pause has begun.
                let runs = runs.borrow();
                for source in SOURCES.iter().filter(|_| *runs) {
                    driven.say(source);
                }
            }
        });
        Load {
            stage,
            running,
            _driver: driver,
        }
    }
}

impl Load {
    /// Who knows what was promised.
    pub fn oracle(&self) -> &Oracle {
        &self.stage.oracle
    }

    /// Goes on.
    pub fn resume(&self) {
        self.running.send_replace(true);
    }

    /// Says nothing more, but for what senders have yet to deliver.
    pub fn pause(&self) {
        self.running.send_replace(false);
    }

    /// Lets a source say one event that is kept.
    pub fn say(&self, source: &str) -> Promise {
        loop {
            if let Some(promise) = self.stage.say(source) {
                return promise;
            }
        }
    }

    /// Waits until the senders have delivered what they hold.
    pub async fn drained(&self) {
        self.stage.stalwart.drained().await;
        self.stage.platform.drained().await;
    }
}

impl Stage {
    /// One event; `None`: one that is left out on purpose.
    fn say(&self, source: &str) -> Option<Promise> {
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        let (rng, people, at) = (&mut dice.rng, &self.sources.people, Timestamp::now());
        let tenant_of = |said: &Value| self.whose.told_by(&said.to_string());
        match source {
            "authentik" => {
                let event = authentik::events::realistic(rng, people, at);
                let tenant = tenant_of(&event);
                let pk = self.sources.authentik.insert(event.clone(), Duration::ZERO);
                Some(self.oracle.promise(source, pk, event, tenant))
            }
            "ocis" => {
                let line = ocis::realistic(rng, people, at);
                let offset = self.sources.ocis.bytes_written();
                let is_read = ["file_read", "public_link_accessed"].contains(&line.action());
                if is_read {
                    self.oracle.left_out(source);
                }
                let promise = (!is_read).then(|| {
                    let said = serde_json::from_slice(&line.to_bytes()).expect("a line is JSON");
                    let tenant = tenant_of(&said);
                    self.oracle
                        .promise(source, offset.to_string(), said, tenant)
                });
                let appended = self.sources.ocis.append(&line);
                appended.expect("the log can be written");
                promise
            }
            "stalwart" => {
                let events = stalwart::realistic(rng, people, at, StalwartProfile::V0_16);
                dice.serial += 1;
                let serial = dice.serial;
                let mut event = events.into_iter().next()?;
                event
                    .data
                    .insert("promise".to_owned(), serial.to_string().into());
                let said = json!({ "type": event.kind, "data": event.data });
                let tenant = tenant_of(&said);
                let promise = self
                    .oracle
                    .promise(source, serial.to_string(), said, tenant);
                self.stalwart.push(event);
                Some(promise)
            }
            _ => {
                let event = platform::realistic(rng, people, at);
                let key = event["externalId"].as_str().unwrap_or_default().to_owned();
                let (said, tenant) = (event["metadata"].clone(), tenant_of(&event));
                let promise = self.oracle.promise(source, key, said, tenant);
                self.platform.push(event);
                Some(promise)
            }
        }
    }
}
