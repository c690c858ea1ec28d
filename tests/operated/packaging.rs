//! The image's root file system, the compose file, the unit, the rotation.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use crate::{root, text};

const DAYBOOK: &str = env!("CARGO_BIN_EXE_daybook");

fn run(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    let output = command.output();
    output.unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn succeeds(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{program} {arguments:?}\n{stdout}{stderr}"
    );
    stdout + &stderr
}

/// Values of a key in a YAML text, without quotes.
fn values<'a>(yaml: &'a str, key: &str) -> Vec<&'a str> {
    let prefix = format!("{key}:");
    let lines = yaml.lines().map(str::trim);
    let values = lines.filter_map(|line| line.strip_prefix(prefix.as_str()));
    values
        .map(|value| value.trim().trim_matches(['\'', '"']))
        .collect()
}

#[test]
fn compose_is_valid_in_each_profile() {
    let dir = tempfile::tempdir().unwrap();
    let compose = |profiles: &str, arguments: &[&str]| {
        let output = Command::new("docker-compose")
            .args(arguments)
            .current_dir(root())
            .env("COMPOSE_PROFILES", profiles)
            .env("SECRETS_DIR", dir.path())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        assert!(!stderr.to_lowercase().contains("warning"), "{stderr}");
        String::from_utf8(output.stdout).unwrap()
    };
    // docker-compose 1.29 also tells of services of profiles that are off, v2 does not.
    for (profiles, fewest) in [("", 5), ("workspace", 10)] {
        let resolved = compose(profiles, &["config"]);
        let images = values(&resolved, "image");
        assert!(images.len() >= fewest, "{images:?}");
        for image in images {
            let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
            let pinned = tag.chars().filter(char::is_ascii_digit).count() >= 2 && tag.contains('.');
            assert!(pinned, "{image} is not pinned by version");
        }
    }
    let services = compose("", &["config", "--services"]);
    for service in [
        "daybook",
        "mongodb",
        "mongodb-init",
        "prometheus",
        "grafana",
    ] {
        assert!(services.lines().any(|line| line == service), "{services}");
    }
}

#[test]
fn compose_gives_daybook_what_it_needs_and_no_more() {
    let compose = text("docker-compose.yml");
    for part in [
        "ocis-audit:/var/log/ocis:ro",
        "OCIS_ADD_RUN_SERVICES: audit",
        "AUDIT_LOG_TO_FILE: \"true\"",
        "AUDIT_LOG_TO_CONSOLE: \"false\"",
        "AUDIT_FILEPATH: /var/log/ocis/audit.log",
        "AUDIT_FORMAT: json",
        "read_only: true",
        "cap_drop: [ALL]",
        "no-new-privileges:true",
        "nofile: 65536",
        "service_completed_successfully",
        // The server of the image's first start is of no set.
        "hello.setName || hello.isreplicaset",
        "healthcheck, --url, \"http://127.0.0.1:8080\"]",
    ] {
        assert!(compose.contains(part), "{part}");
    }
    for part in ["AUDIT_LOG_FILE_PATH", "AUDIT_LOG_FORMAT", "copytruncate"] {
        assert!(!compose.contains(part), "{part} does not exist");
    }
    // Every secret is a file that deploy/secrets.sh draws, and no password stands anywhere.
    let dir = tempfile::tempdir().unwrap();
    let secrets = dir.path().join("secrets");
    let draw = || {
        let drawn = Command::new("sh")
            .arg("deploy/secrets.sh")
            .current_dir(root())
            .env("SECRETS_DIR", &secrets)
            .output()
            .unwrap();
        assert!(drawn.status.success());
        let mut files: Vec<(String, String)> = std::fs::read_dir(&secrets)
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                (name, std::fs::read_to_string(path).unwrap())
            })
            .collect();
        files.sort();
        files
    };
    let drawn = draw();
    assert_eq!(draw(), drawn, "a second run draws nothing anew");
    let drawn_names: BTreeSet<&str> = drawn.iter().map(|(name, _)| name.as_str()).collect();
    let wanted = values(&compose, "file").into_iter();
    let wanted: BTreeSet<&str> = wanted
        .map(|path| path.rsplit('/').next().unwrap())
        .collect();
    assert_eq!(drawn_names, wanted);
    let distinct: BTreeSet<&str> = drawn.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(distinct.len(), drawn.len());
    for (name, value) in &drawn {
        assert!(value.len() > 40 && !value.ends_with('\n'), "{name}");
    }
    // Named in .env.example, and the other way round.
    for line in text(".env.example").lines() {
        let line = line.trim_start_matches('#');
        let name = line.split_once('=').map(|(name, _)| name);
        // compose itself reads its profiles.
        let name = name.filter(|name| !name.contains(' ') && *name != "COMPOSE_PROFILES");
        if let Some(name) = name {
            assert!(
                compose.contains(&format!("${{{name}:-")),
                "{name} is used nowhere"
            );
        }
    }
}

#[test]
fn secrets_are_drawn_where_compose_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(".env"), "SECRETS_DIR=./elsewhere\n").unwrap();
    let drawn = Command::new("sh")
        .arg(root().join("deploy/secrets.sh"))
        .current_dir(dir.path())
        .env_remove("SECRETS_DIR")
        .status()
        .unwrap();
    assert!(drawn.success());
    assert!(dir.path().join("elsewhere/store_url").exists());
    assert!(!dir.path().join("secrets").exists());
}

#[test]
fn secrets_of_a_host_outlive_its_reboot() {
    let guides = ["authentik", "ocis", "stalwart", "platform"];
    let guides = guides.map(|system| format!("docs/connect-{system}.md"));
    for page in guides.iter().map(String::as_str).chain(["README.md"]) {
        for line in text(page).lines() {
            // Of a container they are mounted anew.
            let is_lost = line.contains("/run/secrets") && !line.contains("container");
            assert!(!is_lost, "{page}: {line}");
        }
    }
}

#[test]
fn the_configuration_of_the_image_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    let secrets = dir.path().join("secrets");
    let drawn = Command::new("sh")
        .arg("deploy/secrets.sh")
        .current_dir(root())
        .env("SECRETS_DIR", &secrets)
        .status()
        .unwrap();
    assert!(drawn.success());
    for name in ["daybook.toml", "daybook-workspace.toml"] {
        let config = text(&format!("deploy/{name}"))
            .replace("/run/secrets", &secrets.display().to_string())
            .replace("/etc/daybook", &root().join("deploy").display().to_string())
            .replace("/var/lib/daybook", &dir.path().display().to_string());
        let path = dir.path().join(name);
        std::fs::write(&path, config).unwrap();
        let told = succeeds(DAYBOOK, &["check", "-c", path.to_str().unwrap()]);
        assert!(told.contains("configuration is valid"), "{told}");
    }
    // The example of the repository too.
    succeeds(DAYBOOK, &["check", "-c", "daybook.example.toml"]);
}

/// Runs a command in the root file system, as root or in a user namespace.
fn inside(rootfs: &Path, arguments: &[&str]) -> Output {
    let is_root = succeeds("id", &["-u"]).trim() == "0";
    let mut command = if is_root {
        Command::new("chroot")
    } else {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "chroot"]);
        command
    };
    let listen = format!("127.0.0.1:{}", testkit::process::free_port());
    command
        .arg(rootfs)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin")
        .env("DAYBOOK__HTTP__LISTEN", listen);
    command.output().unwrap()
}

#[test]
fn the_binary_runs_in_the_root_file_system_of_the_image() {
    let dir = tempfile::tempdir().unwrap();
    let rootfs = dir.path().join("rootfs");
    let target = rootfs.to_str().unwrap();
    succeeds("sh", &["deploy/rootfs.sh", DAYBOOK, target]);
    for absent in ["bin/sh", "usr/bin/sh", "usr/bin/apt"] {
        assert!(!rootfs.join(absent).exists(), "{absent}");
    }
    let version = inside(&rootfs, &["/usr/bin/daybook", "--version"]);
    let told = String::from_utf8_lossy(&version.stdout).into_owned();
    let error = String::from_utf8_lossy(&version.stderr).into_owned();
    assert!(told.starts_with("daybook "), "{told}{error}");
    // No service runs: said, with an exit code that a container's health check understands.
    let health = inside(&rootfs, &["/usr/bin/daybook", "healthcheck"]);
    let error = String::from_utf8_lossy(&health.stderr).into_owned();
    assert_eq!(health.status.code(), Some(1), "{error}");
    assert!(error.contains("does not answer"), "{error}");
    let dockerfile = text("Dockerfile");
    for part in [
        "FROM scratch",
        "USER 65532:65532",
        "HEALTHCHECK",
        "\"healthcheck\", \"--url\", \"http://127.0.0.1:8080\"]",
        "--locked",
    ] {
        assert!(dockerfile.contains(part), "{part}");
    }
    assert!(rootfs.join("etc/ssl/certs/ca-certificates.crt").exists());
    assert!(rootfs.join("usr/share/zoneinfo/Asia/Tokyo").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_check_follows_the_service() {
    let dir = tempfile::tempdir().unwrap();
    let port = testkit::process::free_port();
    let config = dir.path().join("daybook.toml");
    let text = format!(
        "[store]\nurl = \"sqlite:{0}/daybook.db\"\n[http]\nlisten = \"127.0.0.1:{port}\"\n[journal]\ndir = \"{0}/journal\"\n[[sources]]\nkind = \"recorder\"\n",
        dir.path().display()
    );
    std::fs::write(&config, &text).unwrap();
    let file = config.as_path();
    let config = file.to_str().unwrap();
    let url = format!("http://127.0.0.1:{port}");
    let check = |arguments: &[&str]| {
        let output = run(DAYBOOK, &[&["healthcheck"], arguments].concat());
        output.status.code()
    };
    let of_file = ["-c", config];
    let of_address = ["--url", url.as_str()];
    for asked in [&of_file, &of_address] {
        assert_eq!(check(asked), Some(1), "{asked:?}");
    }
    let log = dir.path().join("log");
    let mut daybook = testkit::process::Process::spawn(DAYBOOK, &["run", "-c", config], port, &log);
    daybook.ready().await;
    for asked in [&of_file, &of_address] {
        assert_eq!(check(asked), Some(0), "{asked:?}");
        let ready = [asked.as_slice(), &["--ready"]].concat();
        assert_eq!(check(&ready), Some(0), "{ready:?}");
    }
    // Where its store is may be for the service alone to read.
    let elsewhere = text.replacen("url = \"sqlite:", "url_file = \"/nowhere", 1);
    std::fs::write(file, elsewhere).unwrap();
    assert_eq!(check(&of_file), Some(0));
    // A mistake in the file does not end the service that runs.
    std::fs::write(file, format!("oops = 1\n{text}")).unwrap();
    assert_eq!(check(&of_file), Some(78));
    assert_eq!(check(&of_address), Some(0));
    daybook.signal("TERM");
    assert_eq!(daybook.wait().await.code(), Some(0));
    assert_eq!(check(&of_address), Some(1));
}

#[test]
fn the_unit_is_hardened() {
    let unit = text("deploy/systemd/daybook.service");
    for part in [
        "DynamicUser=yes",
        "ProtectSystem=strict",
        "CapabilityBoundingSet=\n",
        "SystemCallFilter=@system-service",
        "RestartPreventExitStatus=78",
    ] {
        assert!(unit.contains(part), "{part}");
    }
    // The status of the one is not looked at before a restart; with the other no installation starts
    // that lacks its file.
    for part in ["ExecStartPre=", "LoadCredential="] {
        let is_set = unit.lines().any(|line| line.starts_with(part));
        assert!(!is_set, "{part}");
    }
    let arguments = ["security", "--offline=true", "--threshold=20"];
    let told = succeeds(
        "systemd-analyze",
        &[arguments.as_slice(), &["deploy/systemd/daybook.service"]].concat(),
    );
    let exposure = told.lines().find(|line| line.contains("Overall exposure"));
    println!("{}", exposure.unwrap_or_default());
}

#[test]
fn the_unit_and_every_command_beside_it_use_one_database() {
    let unit = text("deploy/systemd/daybook.service");
    let (_, directory) = unit.split_once("\nWorkingDirectory=").unwrap();
    let (directory, _) = directory.split_once('\n').unwrap();
    let readme = text("README.md");
    let (_, section) = readme.split_once("\n## With systemd\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    // Of the file that the section installs.
    let example = text("daybook.example.toml");
    for default in ["url = \"sqlite:data/daybook.db\"", "dir = \"data/journal\""] {
        assert!(example.lines().any(|line| line == default), "{default}");
        let written = default.replace("data/", &format!("{directory}/data/"));
        assert!(section.contains(&written), "{written}");
    }
    let mut tokens = section.lines().filter(|line| line.contains("token new"));
    let token = tokens.next().unwrap();
    let there = format!("cd {directory} && daybook token new ");
    assert!(token.starts_with(&there), "{token}");

    let runbook = text("docs/runbook.md");
    assert!(runbook.contains(&format!(", in `{directory}`,")));
    let commands = runbook.lines().filter(|line| line.contains("sqlite3 "));
    let commands: Vec<&str> = commands.collect();
    assert!(commands.len() > 2, "{commands:?}");
    for command in commands {
        assert!(command.contains(" data/daybook.db"), "{command}");
    }
}

#[test]
fn logrotate_takes_the_rotation() {
    let logrotate = "/usr/sbin/logrotate";
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.log");
    std::fs::write(&log, "a line\n").unwrap();
    let rules = text("deploy/logrotate/daybook-ocis")
        .replace("/var/log/ocis/audit.log", &log.display().to_string());
    let config = dir.path().join("rules");
    std::fs::write(&config, rules).unwrap();
    let state = dir.path().join("state");
    let arguments = ["--force", "--state", state.to_str().unwrap()];
    succeeds(
        logrotate,
        &[arguments.as_slice(), &[config.to_str().unwrap()]].concat(),
    );
    assert!(!log.exists(), "OCIS makes it again");
    let rotated = std::fs::read_to_string(dir.path().join("audit.log.1")).unwrap();
    assert_eq!(rotated, "a line\n");
}
