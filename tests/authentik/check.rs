//! `daybook check --online`: reached, permitted, and would events flow?

use std::time::Duration;

use daybook::simulators::authentik::{
    FakeAuthentik, FakeAuthentikConfig, Fault, Permissions, Scripted, Times,
};
use tempfile::TempDir;
use tokio::process::Command;

use super::{fake, fake_with, new_event};

/// Exit code and what was printed.
async fn check(fake: &FakeAuthentik, path: &str) -> (i32, String) {
    check_with(fake, path, "").await
}

/// The same with lines of one's own in the source's table.
async fn check_with(fake: &FakeAuthentik, path: &str, lines: &str) -> (i32, String) {
    let dir = TempDir::new().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, fake.token()).unwrap();
    let config = dir.path().join("daybook.toml");
    let text = format!(
        "[store]\nurl = \"sqlite:{}\"\n[journal]\ndir = \"{}\"\n[[sources]]\nkind = \"authentik\"\nurl = \"{}{path}\"\ntoken_file = \"{}\"\n{lines}\n",
        dir.path().join("daybook.db").display(),
        dir.path().join("journal").display(),
        fake.url(),
        token.display(),
    );
    std::fs::write(&config, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_daybook"))
        .args(["check", "--online", "-c"])
        .arg(&config)
        .output()
        .await
        .unwrap();
    let mut printed = String::from_utf8(output.stdout).unwrap();
    printed.push_str(&String::from_utf8(output.stderr).unwrap());
    assert!(!printed.contains(&fake.token()), "{printed}");
    (output.status.code().unwrap(), printed)
}

async fn with(permissions: Permissions) -> FakeAuthentik {
    let fake = fake_with(FakeAuthentikConfig {
        permissions,
        ..FakeAuthentikConfig::default()
    })
    .await;
    fake.insert(new_event(), Duration::ZERO);
    fake
}

async fn fails(fake: &FakeAuthentik, path: &str, wanted: &[&str]) {
    fails_with(fake, path, "", wanted).await;
}

async fn fails_with(fake: &FakeAuthentik, path: &str, lines: &str, wanted: &[&str]) {
    let (code, printed) = check_with(fake, path, lines).await;
    assert_eq!(code, 78, "{printed}");
    assert!(printed.contains("FAIL  authentik: "), "{printed}");
    for part in wanted {
        assert!(printed.contains(part), "{part:?} in: {printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_works_is_told() {
    let fake = with(Permissions::READER).await;
    let (code, printed) = check(&fake, "").await;
    assert_eq!(code, 0, "{printed}");
    for part in [
        "reached",
        "as daybook",
        "1 event is visible",
        "events would flow",
        "can be looked up",
    ] {
        assert!(printed.contains(part), "{part:?} in: {printed}");
    }

    let fake = with(Permissions::EVENTS_ONLY).await;
    let (code, printed) = check(&fake, "").await;
    assert_eq!(code, 0, "{printed}");
    for part in [
        "events would flow",
        "users cannot be looked up",
        "from the directory alone",
    ] {
        assert!(printed.contains(part), "{part:?} in: {printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_that_are_not_let_through_are_told_as_such() {
    for (fault, reason) in [
        (Fault::NotFoundHtml, "(404 an HTML page)"),
        (Fault::BadGateway, "(server error 502: failed to connect"),
    ] {
        let fake = with(Permissions::READER).await;
        let hidden = Scripted::new(fault).times(Times::Forever);
        fake.script(hidden.on("/core/users/"));
        let (code, printed) = check(&fake, "").await;
        assert_eq!(code, 0, "{printed}");
        assert!(fake.fault_hits() > 0, "{reason}");
        for part in ["events would flow", reason, "pass /api/v3/core/users/ on"] {
            assert!(printed.contains(part), "{part:?} in: {printed}");
        }
        for part in ["check the url", "Can view User"] {
            assert!(!printed.contains(part), "{part:?} in: {printed}");
        }
    }
}

/// A role without its rights behind a proxy that hides the user: Authentik's own refusal says more.
#[tokio::test(flavor = "multi_thread")]
async fn what_authentik_says_of_the_list_goes_before_what_hides_the_user() {
    let fake = with(Permissions::NONE).await;
    let hidden = Scripted::new(Fault::NotFoundHtml).times(Times::Forever);
    fake.script(hidden.on("/core/users/"));
    let wanted = ["not permitted to read events", "view_event"];
    fails(&fake, "", &wanted).await;
    assert!(fake.fault_hits() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_told() {
    let fake = with(Permissions::NONE).await;
    fails(
        &fake,
        "",
        &[
            "reached as daybook",
            "not permitted to read events",
            "view_event",
        ],
    )
    .await;
    let fake = with(Permissions::OUTPOST).await;
    fails(
        &fake,
        "",
        &["reached as daybook", "sees no event", "outpost"],
    )
    .await;
    let fake = with(Permissions::READER).await;
    fails(&fake, "/wrong", &["no events API at this address"]).await;
    fake.set_fault(Fault::Forbidden("Token invalid/expired"), Times::Forever);
    fails(
        &fake,
        "",
        &["reached, but the token is refused", "Token invalid/expired"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_answer_is_told() {
    let fake = fake().await;
    for (fault, wanted) in [
        (Fault::Starting, "503"),
        (Fault::HangBeforeHeaders, "no answer in time"),
        (Fault::OkHtml, "HTML page"),
        (Fault::RedirectToLogin, "redirected (302)"),
        (
            Fault::TooManyRequests {
                retry_after: 1,
                html: true,
            },
            "slow down",
        ),
    ] {
        // Short only where nobody answers: a busy machine answers late.
        let lines = match fault {
            Fault::HangBeforeHeaders => "timeout = \"2s\"",
            _ => "",
        };
        fake.clear_faults();
        fake.set_fault(fault, Times::Forever);
        fails_with(&fake, "", lines, &[wanted]).await;
    }
}
