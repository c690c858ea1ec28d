//! The kill matrix: every actor, struck in every way at every point that it has, while all four
//! kinds of source are busy; afterwards every invariant holds.
//!
//! | point | where the actor is |
//! | --- | --- |
//! | `post_start` | it has just been restarted |
//! | `in_backoff` | it is down, and its supervisor is struck meanwhile |
//! | `after_read` | it has its input (a page, a chunk of lines, a request, a batch) and has done nothing yet |
//! | `after_send` | the resolver has handed the batch on |
//! | `before_insert`, `between_insert_and_cursor`, `between_cursor_and_ack` | in the writer's flush |
//! | `after_ack` | all is durable, and the source has not noted it |
//! | `in_retry` | the store has refused its batch, and it is about to wait before it sends again |
//! | `in_job` | a push is under way beside the acceptor |
//! | `after_accept`, `after_body`, `before_answer` | in the accept loop; in one request |
//!
//! An actor in backoff has no task that could return an error or hang, and a supervisor returns
//! errors only by giving up (the supervisor's own tests show that); else every blow meets every point.
#![cfg(any(debug_assertions, feature = "probes"))]
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod cell;
mod recovery;
mod stories;

use cell::{Blow, Cell, Group, Store, Then};

/// Every blow at a point in the actor's own task.
fn in_actor(actor: &'static str, point: &'static str) -> Vec<Cell> {
    [
        (Blow::Panic, "panic"),
        (Blow::Error, "error"),
        (Blow::Kill, "killed"),
        (Blow::Abort, "killed"),
        (Blow::Hang, "stalled"),
    ]
    .map(|(blow, reason)| Cell::new(actor, point, blow, Then::Restarts(actor, reason)))
    .into()
}

/// Every blow at a point in a task of the actor; `panic`, `error` and `hang` say what each does.
fn in_task(actor: &'static str, point: &'static str, thens: [Then; 3]) -> Vec<Cell> {
    let [panic, error, hang] = thens;
    let killed = Then::Restarts(actor, "killed");
    [
        (Blow::Panic, panic),
        (Blow::Error, error),
        (Blow::Kill, killed),
        (Blow::Abort, killed),
        (Blow::Hang, hang),
    ]
    .map(|(blow, then)| Cell::new(actor, point, blow, then))
    .into()
}

/// Every blow at the plane of an actor that is down.
fn in_backoff(actor: &'static str, plane: &'static str) -> Vec<Cell> {
    [
        (Blow::Panic, "panic"),
        (Blow::Kill, "killed"),
        (Blow::Abort, "killed"),
    ]
    .map(|(blow, reason)| Cell::new(actor, "in_backoff", blow, Then::Restarts(plane, reason)))
    .into()
}

fn acceptor(source: &'static str) -> Vec<Cell> {
    // A job that fails harms nobody but its request, which is sent again.
    let alone = [Then::GoesOn; 3];
    [
        in_actor(source, "post_start"),
        in_actor(source, "after_read"),
        in_task(source, "in_job", alone),
        in_task(source, "after_ack", alone),
        in_backoff(source, "sources"),
    ]
    .concat()
}

fn puller(source: &'static str) -> Vec<Cell> {
    [
        in_actor(source, "post_start"),
        in_actor(source, "after_read"),
        in_actor(source, "after_ack"),
        in_actor(source, "in_retry"),
        in_backoff(source, "sources"),
    ]
    .concat()
}

/// The writer's flush. An error there is the store's: the breaker opens.
fn flush(points: &[&'static str], panic_in: impl Fn(&str) -> Then) -> Vec<Cell> {
    let hang = Then::Restarts("writer", "stalled");
    let cells = points
        .iter()
        .map(|point| in_task("writer", point, [panic_in(point), Then::GoesOn, hang]));
    cells.collect::<Vec<_>>().concat()
}

const FLUSH: [&str; 3] = [
    "before_insert",
    "between_insert_and_cursor",
    "between_cursor_and_ack",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authentik_poller() {
    Group::new("authentik", puller("authentik")).run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ocis_tailer() {
    Group::new("ocis", puller("ocis")).run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalwart_acceptor() {
    Group::new("stalwart", acceptor("stalwart")).run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorder_acceptor() {
    let cells = acceptor("platform-api");
    Group::new("recorder", cells).run().await;
}

/// The store refuses until pushes stand in the journal; then it takes them, and they are drained.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn journal_drainer() {
    let ended = Then::Restarts("journal", "error");
    let stalled = Then::Restarts("journal", "stalled");
    let in_draining = |point| in_task("journal", point, [ended, ended, stalled]);
    let cells = [
        in_actor("journal", "post_start"),
        in_draining("after_read"),
        in_draining("in_retry"),
        in_draining("after_ack"),
        in_backoff("journal", "sources"),
    ]
    .concat();
    Group::new("journal", cells).run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resolver() {
    let cells = [
        in_actor("resolver", "post_start"),
        in_actor("resolver", "after_read"),
        in_actor("resolver", "after_send"),
        in_backoff("resolver", "store"),
    ]
    .concat();
    Group::new("resolver", cells).run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writer() {
    // The database's thread catches its own panics.
    let panics = |point: &str| match point {
        "between_insert_and_cursor" => Then::GoesOn,
        _ => Then::Restarts("writer", "error"),
    };
    let cells = [
        in_actor("writer", "post_start"),
        in_actor("writer", "after_read"),
        flush(&FLUSH, panics),
        in_backoff("writer", "store"),
    ]
    .concat();
    Group::new("writer", cells).run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writer_on_mongodb() {
    let cells = flush(&FLUSH, |_| Then::Restarts("writer", "error"));
    let group = Group::new("writer on MongoDB", cells);
    group.on(Store::MongoDb).run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http() {
    let ended = Then::Restarts("http", "error");
    let stalled = Then::Restarts("http", "stalled");
    let cells = [
        in_actor("http", "post_start"),
        in_task("http", "after_accept", [ended, ended, stalled]),
        in_task("http", "after_body", [Then::GoesOn; 3]),
        in_task("http", "before_answer", [Then::GoesOn; 3]),
        in_backoff("http", "edge"),
    ]
    .concat();
    Group::new("http", cells).run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn supervisors() {
    let cells = ["store", "sources", "edge"].map(|plane| {
        let killed = Then::Restarts(plane, "killed");
        [Blow::Kill, Blow::Abort].map(|blow| Cell::new(plane, "busy", blow, killed))
    });
    Group::new("supervisors", cells.concat()).run().await;
}
