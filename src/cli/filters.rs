//! The filters that `tail` and `export` share; they mean what the API's parameters mean.

use clap::Args;
use jiff::{SignedDuration, Timestamp};

use crate::config::units::parse_duration;
use crate::event::{Outcome, parse_bound};
use crate::http::query::check_length;
use crate::store::EventFilter;

#[derive(Args, Clone, Debug, Default)]
pub(super) struct FilterArgs {
    /// Only events of this source.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only events of this tenant.
    #[arg(long, value_name = "SLUG")]
    tenant: Option<String>,
    /// Only this action; `authentik.*` matches a prefix.
    #[arg(long)]
    action: Option<String>,
    /// Only of the actor with this id, email or name, letters in any case.
    #[arg(long)]
    actor: Option<String>,
    /// Only from this address.
    #[arg(long)]
    ip: Option<String>,
    /// Only on the target with this id or name, letters in any case.
    #[arg(long)]
    target: Option<String>,
    /// success, failure or unknown.
    #[arg(long, value_parser = parse_outcome)]
    outcome: Option<Outcome>,
    /// Not before this: 2026-11-24T04:05:39Z, 2026-11-24 (UTC), or 2h ago.
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
    since: Option<Timestamp>,
    /// Before this.
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
    until: Option<Timestamp>,
    /// Found anywhere in action, actor, target or address, letters in any case.
    #[arg(long)]
    text: Option<String>,
    /// At most so many, the newest ones.
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<u64>,
}

impl FilterArgs {
    /// As the stores take it; an empty value asks for nothing.
    pub(super) fn filter(&self) -> Result<EventFilter, anyhow::Error> {
        let given = |name: &str, text: &Option<String>| {
            let text = text.clone().filter(|text| !text.is_empty());
            match check_length(name, text.as_deref().unwrap_or_default()) {
                Ok(()) => Ok(text),
                Err(longest) => Err(anyhow::anyhow!("--{name} is longer than {longest} bytes")),
            }
        };
        if let (Some(since), Some(until)) = (self.since, self.until)
            && since > until
        {
            anyhow::bail!("--until is before --since");
        }
        Ok(EventFilter {
            source: given("source", &self.source)?,
            tenant: given("tenant", &self.tenant)?,
            action: given("action", &self.action)?,
            actor: given("actor", &self.actor)?,
            ip: given("ip", &self.ip)?,
            target: given("target", &self.target)?,
            outcome: self.outcome,
            text: given("text", &self.text)?,
            since: self.since,
            until: self.until,
        })
    }
}

fn parse_outcome(word: &str) -> Result<Outcome, String> {
    Outcome::from_word(word).ok_or_else(|| "wanted: success, failure or unknown".to_owned())
}

pub(super) fn parse_when(text: &str) -> Result<Timestamp, String> {
    let ago = || {
        let ago = SignedDuration::try_from(parse_duration(text).ok()?).ok()?;
        Timestamp::now().checked_sub(ago).ok()
    };
    let wanted = "wanted: a time like 2026-11-24T04:05:39Z, a date, or how long ago, like 2h or 7d";
    parse_bound(text)
        .or_else(ago)
        .ok_or_else(|| wanted.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct CommandLine {
        #[command(flatten)]
        filters: FilterArgs,
    }

    #[test]
    fn times_are_moments_days_or_ages() {
        assert_eq!(
            parse_when("2026-11-24").unwrap().to_string(),
            "2026-11-24T00:00:00Z"
        );
        assert_eq!(parse_when("9999-12-31"), Ok(Timestamp::MAX));
        let ago = Timestamp::now().duration_since(parse_when("90m").unwrap());
        assert!((ago.as_secs() - 5400).abs() < 60, "{ago:?}");
        assert!(parse_when("yesterday").unwrap_err().contains("2h"));
    }

    #[test]
    fn what_is_empty_asks_for_nothing() {
        let args = FilterArgs {
            actor: Some(String::new()),
            ip: Some("192.0.2.1".to_owned()),
            ..FilterArgs::default()
        };
        let filter = args.filter().unwrap();
        assert_eq!(
            (filter.actor, filter.ip.as_deref()),
            (None, Some("192.0.2.1"))
        );
    }

    #[test]
    fn values_are_as_long_as_in_the_api() {
        let filter = |name: &str, length: usize| {
            let option = format!("--{name}={}", "x".repeat(length));
            let line = CommandLine::try_parse_from(["tail", &option]).unwrap();
            line.filters.filter()
        };
        for (name, longest) in [
            ("source", 1024),
            ("tenant", 8192),
            ("action", 1024),
            ("actor", 8190),
            ("ip", 8192),
            ("target", 8190),
            ("text", 1024),
        ] {
            assert!(filter(name, longest).is_ok(), "{name}");
            let error = filter(name, longest + 1).unwrap_err().to_string();
            assert_eq!(error, format!("--{name} is longer than {longest} bytes"));
        }
    }
}
