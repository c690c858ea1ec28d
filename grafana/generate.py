#!/usr/bin/env python3
"""Writes the dashboards: `grafana/generate.py` into grafana/dashboards, `--check` compares only.

A dashboard is a list of rows of panels; `panels.py` has what they share. For Grafana 11 and newer.
"""

import json
import sys

sys.dont_write_bytecode = True  # no __pycache__ beside the dashboards

from panels import (
    BAD, CALM, GOOD, HERE, SELECTOR, SOSO, SOURCE, SUSPENDED, UP_DOWN,
    dashboard, heatmap, panel, quantile, rate, runbook_dashboard, steps, target,
)

FOLDER = HERE / "dashboards"


def ingest():
    objective = "daybook:ingest_lag_objective:seconds"
    return [
        ("Now", [
            panel("stat", "Store", "Whether the store takes writes.", [target("min(daybook_store_up{%s})" % SELECTOR)],
                  width=3, height=4, thresholds=steps(BAD, (GOOD, 1)), mappings=UP_DOWN, graph="none", runbook="DaybookStoreDown"),
            panel("stat", "Sources up", "Sources that can be read or accept, of all.",
                  [target("avg(daybook_source_up{%s} and on (job, instance, source) daybook_source_info == 1)" % SOURCE)], "percentunit",
                  width=3, height=4, thresholds=steps(BAD, (GOOD, 1)), graph="none", runbook="DaybookSourceDown"),
            panel("stat", "Worst lag", "Age of the oldest event known and not yet durable, over all sources.",
                  [target("max(daybook_ingest_lag_seconds{%s})" % SOURCE)], "s", width=4, height=4,
                  thresholds=steps(GOOD, (SOSO, 30), (BAD, 60)), runbook="DaybookIngestLagFastBurn"),
            panel("stat", "Entered", "Events entered into the store.", [target("sum(rate(daybook_events_written_total{%s}[$__rate_interval]))" % SOURCE)],
                  "eps", width=4, height=4, thresholds=steps(CALM)),
            panel("stat", "Dead letters", "Input of the last 24 hours that could not become events.",
                  [target("sum(increase(daybook_events_dead_lettered_total{%s}[24h]))" % SOURCE)], "short", width=3, height=4,
                  thresholds=steps(GOOD, (SOSO, 1)), graph="none", runbook="DaybookDeadLetters"),
            panel("stat", "Within the objective", "Part of the last 6 hours in which the lag was within the objective, worst source.",
                  [target("1 - max(daybook:ingest_lag_over_objective:ratio6h{%s})" % SOURCE)], "percentunit", width=4, height=4,
                  thresholds=steps(BAD, (SOSO, 0.94), (GOOD, 0.99)), max=1, graph="none", runbook="DaybookIngestLagSlowBurn"),
            panel("stat", "Version", "The running version.", [target("max by (version) (daybook_build_info{%s})" % SELECTOR, "{{version}}")],
                  width=3, height=4, thresholds=steps(CALM), text="name", graph="none"),
        ]),
        ("Lag", [
            panel("timeseries", "Lag by source", "Age of the oldest event known and not yet durable, and the objective. A dead source knows of nothing and has no lag: see Sources.",
                  [target("max by (source) (daybook_ingest_lag_seconds{%s})" % SOURCE, "{{source}}"), target(objective, "objective")],
                  "s", width=12, thresholds=steps(GOOD, (BAD, 60)), runbook="DaybookIngestLagFastBurn",
                  overrides=[{"matcher": {"id": "byName", "options": "objective"},
                              "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": BAD}},
                                             {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 8]}},
                                             {"id": "custom.fillOpacity", "value": 0}]}]),
            panel("timeseries", "Burn of the lag budget", "How many times faster than allowed the budget is used up, over 5 minutes, 1 hour and 6 hours, worst source. Alerts at 14.4 and 6.",
                  [target("max(daybook:ingest_lag_over_objective:ratio5m{%s}) / scalar(daybook:ingest_lag_budget:ratio)" % SOURCE, "5 m"),
                   target("max(daybook:ingest_lag_over_objective:ratio1h{%s}) / scalar(daybook:ingest_lag_budget:ratio)" % SOURCE, "1 h"),
                   target("max(daybook:ingest_lag_over_objective:ratio6h{%s}) / scalar(daybook:ingest_lag_budget:ratio)" % SOURCE, "6 h")],
                  "x", width=12, thresholds=steps(GOOD, (SOSO, 6), (BAD, 14.4)), line=True, runbook="DaybookIngestLagSlowBurn"),
            heatmap("From received to durable", "How long events waited in Daybook.", "daybook_ingest_latency_seconds", SOURCE, width=12),
            heatmap("From happened to durable", "How old events were when they became durable; the poll of a source counts in.", "daybook_event_age_seconds", SOURCE, width=12),
        ]),
        ("Flow", [
            panel("timeseries", "In", "Pieces of input taken from each source.", [target(rate("daybook_events_received_total", "source"), "{{source}}")], "eps", runbook="DaybookSourceSilent"),
            panel("timeseries", "Entered", "Events entered into the store for the first time.", [target(rate("daybook_events_written_total", "source"), "{{source}}")], "eps", stack=True, audit=""),
            panel("timeseries", "Duplicates and left out", "Events that were there already (polls read back) and reads left out on purpose.",
                  [target(rate("daybook_events_duplicate_total", "source"), "{{source}} there already"), target(rate("daybook_events_filtered_total", "source"), "{{source}} left out")], "eps"),
            panel("timeseries", "Dead letters", "Input that could not become events, by reason.",
                  [target("sum by (source, reason) (increase(daybook_events_dead_lettered_total{%s}[$__rate_interval])) > 0 or sum by (source) (increase(daybook_events_dead_lettered_total{%s}[$__rate_interval]))" % (SOURCE, SOURCE), "{{source}} {{reason}}")],
                  runbook="DaybookDeadLetters"),
            panel("timeseries", "Without a tenant", "Part of the entered events for which no tenant was found.",
                  [target(rate("daybook_events_unresolved_tenant_total", "source") + " / (" + rate("daybook_events_written_total", "source") + " > 0)", "{{source}}")],
                  "percentunit", max=1, runbook="DaybookTenantsUnresolved"),
            panel("timeseries", "What became of the input", "All sources together: everything received is one of these or in flight.",
                  [target("sum(rate(daybook_events_written_total{%s}[$__rate_interval]))" % SOURCE, "entered"),
                   target("sum(rate(daybook_events_duplicate_total{%s}[$__rate_interval]))" % SOURCE, "there already"),
                   target("sum(rate(daybook_events_filtered_total{%s}[$__rate_interval]))" % SOURCE, "left out"),
                   target("sum(rate(daybook_events_dead_lettered_total{%s}[$__rate_interval]))" % SOURCE, "dead letters")], "eps", stack=True),
        ]),
        ("Pressure", [
            panel("timeseries", "In flight", "Bytes of payload between sources and store, and the most there may be.",
                  [target("sum by (instance) (daybook_in_flight_bytes{%s})" % SELECTOR, "{{instance}}"), target("sum by (instance) (daybook_in_flight_limit_bytes{%s})" % SELECTOR, "{{instance}} limit")],
                  "bytes", runbook="DaybookInFlightAtLimit"),
            panel("timeseries", "Backpressure", "Seconds a second that sources waited for room in flight.",
                  [target(rate("daybook_backpressure_seconds_total", "instance", SELECTOR), "{{instance}}")], "percentunit", thresholds=steps(GOOD, (BAD, 0.5)), line=True, runbook="DaybookInFlightAtLimit"),
            panel("timeseries", "Journal", "Bytes of pushes that wait for the store, and the most there may be.",
                  [target("sum by (instance) (daybook_journal_bytes{%s})" % SELECTOR, "{{instance}}"), target("sum by (instance) (daybook_journal_limit_bytes{%s})" % SELECTOR, "{{instance}} limit")],
                  "bytes", runbook="DaybookJournalFillingUp"),
            panel("timeseries", "Oldest in the journal", "Age of the oldest push in the journal.", [target("max by (instance) (daybook_journal_oldest_seconds{%s})" % SELECTOR, "{{instance}}")],
                  "s", runbook="DaybookJournalNotDraining"),
        ]),
        ("Store", [
            panel("timeseries", "Flush", "How long a flush took.",
                  [target(quantile(q, "daybook_writer_flush_seconds"), "p%g" % (q * 100)) for q in (0.5, 0.95, 0.99)], "s"),
            panel("timeseries", "Events a flush", "How many events a flush carried.",
                  [target(quantile(q, "daybook_writer_batch_events"), "p%g" % (q * 100)) for q in (0.5, 0.99)], "short"),
            panel("timeseries", "Errors", "Failed store operations by reason.", [target(rate("daybook_store_errors_total", "reason", SELECTOR), "{{reason}}")], "ops", runbook="DaybookStoreErrors"),
            panel("state-timeline", "Store up", "Whether the store took writes.", [target("min by (instance) (daybook_store_up{%s})" % SELECTOR, "{{instance}}")],
                  width=12, height=6, mappings=UP_DOWN, thresholds=steps(BAD, (GOOD, 1)), runbook="DaybookStoreDown"),
            panel("timeseries", "Deleted by retention", "Events and dead letters deleted because they were older than retention.days.",
                  [target("sum(increase(daybook_retention_deleted_events_total{%s}[$__rate_interval]))" % SELECTOR, "events"),
                   target("sum(increase(daybook_retention_deleted_dead_letters_total{%s}[$__rate_interval]))" % SELECTOR, "dead letters")], width=12, height=6),
        ]),
    ]


def of_kind(kind, expr):
    return f'{expr} and on (job, instance, source) daybook_source_info{{kind="{kind}"}}'


def sources():
    kind_of = "daybook_source_info{%s} == 1" % SOURCE
    latest = lambda expr: target(expr, format="table", instant=True, range=False)
    return [
        ("All sources", [
            panel("table", "Sources", "Each source as it is now.",
                  [latest(kind_of), latest("daybook_source_up{%s}" % SOURCE), latest("daybook_ingest_lag_seconds{%s}" % SOURCE),
                   latest("time() - (daybook_source_last_success_timestamp_seconds{%s} > 0)" % SOURCE), latest("increase(daybook_events_received_total{%s}[1h])" % SOURCE)],
                  width=24, height=7, runbook="DaybookSourceDown",
                  transformations=[
                      {"id": "joinByField", "options": {"byField": "source", "mode": "outer"}},
                      {"id": "organize", "options": {
                          "excludeByName": {**{f"{n} {i}": True for n in ("Time", "job", "instance", "__name__") for i in range(1, 6)}, "Value #A": True},
                          "renameByName": {"kind": "Kind", "source": "Source", "Value #B": "Up", "Value #C": "Lag", "Value #D": "Last success", "Value #E": "In 1 h"}}},
                  ],
                  overrides=[
                      {"matcher": {"id": "byName", "options": "Up"}, "properties": [{"id": "mappings", "value": UP_DOWN}, {"id": "custom.cellOptions", "value": {"type": "color-text"}}]},
                      {"matcher": {"id": "byRegexp", "options": "Lag|Last success"}, "properties": [{"id": "unit", "value": "s"}]},
                  ]),
            panel("state-timeline", "Up", "Whether each source could be read, or accepted.", [target("min by (source) (daybook_source_up{%s})" % SOURCE, "{{source}}")],
                  width=12, mappings=UP_DOWN, thresholds=steps(BAD, (GOOD, 1)), runbook="DaybookSourceDown"),
            panel("timeseries", "Since the last success", "How long ago each source was read, or delivered, without an error.",
                  [target("time() - (max by (source) (daybook_source_last_success_timestamp_seconds{%s}) > 0)" % SOURCE, "{{source}}")], "s", width=12, runbook="DaybookSourceStale"),
        ]),
        ("Authentik", [
            panel("timeseries", "Requests", "Requests by answer; 000: none came, 403: look at the token.", [target(rate("daybook_authentik_requests_total", "code", SELECTOR), "{{code}}")], "reqps", runbook="DaybookSourceDown"),
            panel("timeseries", "Pages a poll", "How many pages of the list a poll reads: 1 or 2 in quiet times, many while it catches up.",
                  [target(rate("daybook_authentik_pages_total", "source") + " / (" + rate("daybook_authentik_polls_total", "source") + " > 0)", "{{source}}")]),
            panel("timeseries", "Late events", "Events that became visible later than half the overlap.", [target("sum by (source) (increase(daybook_authentik_late_events_total{%s}[$__rate_interval]))" % SOURCE, "{{source}}")],
                  runbook="DaybookAuthentikLateEvents"),
        ]),
        ("OCIS and OpenCloud", [
            panel("timeseries", "Bytes behind", "Bytes of the audit log that are not yet durable. Half a line at the end counts, and is no lag.",
                  [target("max by (source) (daybook_ocis_bytes_behind{%s})" % SOURCE, "{{source}}")], "bytes", runbook="DaybookCursorStalled"),
            panel("timeseries", "Rotations", "Times that another file took the place of the log, or that it was cut.", [target("sum by (source) (increase(daybook_ocis_rotations_total{%s}[$__rate_interval]))" % SOURCE, "{{source}}")]),
            panel("timeseries", "Reads left out", "file_read, file_viewed and public_link_accessed, unless include_reads is set.",
                  [target(of_kind("ocis", "sum by (job, instance, source) (rate(daybook_events_filtered_total{%s}[$__rate_interval]))" % SOURCE), "{{source}}")], "eps"),
        ]),
        ("Stalwart", [
            panel("timeseries", "Webhooks", "Requests by answer.", [target(rate("daybook_webhook_requests_total", "code", SELECTOR), "{{code}}")], "reqps", runbook="DaybookWebhookUnavailable"),
            panel("timeseries", "Refused signatures", "Unsigned: the hook has no key. Wrong signature: another key, or somebody guesses.",
                  [target("sum by (source, reason) (increase(daybook_webhook_refused_total{%s}[$__rate_interval]))" % SOURCE, "{{source}} {{reason}}")], runbook="DaybookWebhookKeyMismatch"),
            panel("timeseries", "Events", "Events taken from webhooks.", [target(of_kind("stalwart", "sum by (job, instance, source) (rate(daybook_events_received_total{%s}[$__rate_interval]))" % SOURCE), "{{source}}")], "eps"),
        ]),
        ("The platform's own services", [
            panel("timeseries", "Recordings", "What services sent to be recorded, by answer.", [target(rate("daybook_recorder_requests_total", "code", SELECTOR), "{{code}}")], "reqps", runbook="DaybookRecorderUnavailable"),
            panel("timeseries", "Events", "Events taken from recorders.", [target(of_kind("recorder", "sum by (job, instance, source) (rate(daybook_events_received_total{%s}[$__rate_interval]))" % SOURCE), "{{source}}")], "eps"),
            panel("timeseries", "All requests", "Requests by route.", [target(rate("daybook_http_requests_total", "route", SELECTOR), "{{route}}")], "reqps"),
        ]),
    ]


def actors():
    return [
        ("Actors", [
            panel("timeseries", "Restarts by reason", "How often actors were restarted, and why.",
                  [target("sum by (actor, reason) (increase(daybook_actor_restarts_total{%s}[$__rate_interval])) > 0 or sum by (reason) (increase(daybook_actor_restarts_total{%s}[$__rate_interval]))" % (SELECTOR, SELECTOR), "{{actor}} {{reason}}")],
                  width=12, runbook="DaybookActorCrashLooping"),
            panel("bargauge", "Restarts in 24 hours", "By actor.", [target("sort_desc(sum by (actor) (increase(daybook_actor_restarts_total{%s}[24h])))" % SELECTOR, "{{actor}}", instant=True, range=False)],
                  width=12, thresholds=steps(GOOD, (SOSO, 1), (BAD, 10)), runbook="DaybookActorCrashLooping"),
            panel("state-timeline", "Suspended", "Actors that crashed too often are tried once in 5 minutes.", [target("max by (actor) (daybook_actor_suspended{%s})" % SELECTOR, "{{actor}}")],
                  width=24, height=9, mappings=SUSPENDED, thresholds=steps(GOOD, (BAD, 1)), runbook="DaybookActorSuspended"),
            panel("timeseries", "Mailboxes", "Batches that wait for the resolver and for the writer.", [target("max by (actor) (daybook_actor_mailbox_messages{%s})" % SELECTOR, "{{actor}}")], width=12),
            panel("timeseries", "Busy", "Part of the time that an actor worked, without what it waited for others.", [target(rate("daybook_actor_busy_seconds_total", "actor", SELECTOR), "{{actor}}")], "percentunit", width=12),
        ]),
        ("The process", [
            panel("state-timeline", "Answers", "Whether Prometheus could scrape it.", [target('min by (instance) (up{%s})' % SELECTOR, "{{instance}}")],
                  width=12, height=6, mappings=UP_DOWN, thresholds=steps(BAD, (GOOD, 1)), runbook="DaybookDown"),
            panel("timeseries", "Scrapes", "How long a scrape took.", [target("scrape_duration_seconds{%s}" % SELECTOR, "{{instance}}")], "s", width=12, height=6),
        ]),
    ]


def in_timeline(action):
    """A public link has an action of its own in the metric only."""
    return "?action=" + ("ocis.file_shared" if action == "ocis.link_shared" else action)


def security():
    def count(title, description, *actions, width=8, **more):
        pattern = "|".join(actions)
        expr = 'sum by (action) (increase(daybook_security_events_total{%s, action=~"%s"}[$__rate_interval]))' % (SOURCE, pattern)
        return panel("timeseries", title, description, [target(expr, "{{action}}")], width=width, audit=in_timeline(actions[0]), **more)

    def total(title, description, *actions, thresholds=None):
        expr = 'sum(increase(daybook_security_events_total{%s, action=~"%s"}[24h]))' % (SOURCE, "|".join(actions))
        return panel("stat", title, description, [target(expr)], width=4, height=4, thresholds=thresholds or steps(CALM), graph="none", audit=in_timeline(actions[0]))

    return [
        ("The last 24 hours", [
            total("Failed sign-ins", "At Authentik.", "authentik.login_failed"),
            total("Failed mail log-ins", "At Stalwart.", "stalwart.auth_failed"),
            total("Bans", "Addresses that Stalwart banned.", "stalwart.auth_banned", thresholds=steps(GOOD, (SOSO, 1))),
            total("Impersonations", "An administrator acted as somebody else.", "authentik.impersonation_started", thresholds=steps(GOOD, (SOSO, 1))),
            total("Public links", "Files and folders shared by a link.", "ocis.link_shared"),
            total("Gaps", "Input that was gone before it could be read.", "daybook.gap_detected", thresholds=steps(GOOD, (BAD, 1))),
        ]),
        ("Sign-ins", [
            count("Authentik", "Sign-ins and failed ones.", "authentik.login", "authentik.login_failed"),
            count("Stalwart", "Log-ins, failed ones and bans.", "stalwart.auth_success", "stalwart.auth_failed", "stalwart.auth_banned"),
            panel("timeseries", "Failed part", "Failed sign-ins of all.",
                  [target('sum(rate(daybook_security_events_total{%s, action="authentik.login_failed"}[$__rate_interval])) / sum(rate(daybook_security_events_total{%s, action=~"authentik.login|authentik.login_failed"}[$__rate_interval]))' % (SOURCE, SOURCE), "Authentik"),
                   target('sum(rate(daybook_security_events_total{%s, action="stalwart.auth_failed"}[$__rate_interval])) / sum(rate(daybook_security_events_total{%s, action=~"stalwart.auth_success|stalwart.auth_failed"}[$__rate_interval]))' % (SOURCE, SOURCE), "Stalwart")],
                  "percentunit", max=1, audit="?action=authentik.login_failed"),
        ]),
        ("Privileges and secrets", [
            count("Administrators", "Impersonations, suspicious requests, lock-downs.", "authentik.impersonation_started", "authentik.suspicious_request_detected", "authentik.user_lockdown_triggered"),
            count("Secrets and passwords", "Viewed and rotated secrets, changed passwords.", "authentik.secret_viewed", "authentik.secret_rotated", "authentik.password_changed", "stalwart.password_changed"),
            count("Accounts", "Made, deleted and changed ones.", "authentik.user_created", "authentik.user_deleted", "authentik.group_updated", "ocis.user_created", "ocis.user_deleted", "ocis.group_member_added", "stalwart.account_changed"),
            count("Policies", "Failed policies, configuration errors, authorised applications.", "authentik.policy_failed", "authentik.configuration_error_detected", "authentik.application_authorized"),
        ]),
        ("Files", [
            count("Shares", "With people and by public links.", "ocis.link_shared", "ocis.file_shared", "ocis.space_shared", "ocis.share_permission_updated", "ocis.share_password_updated"),
            count("Destroyed", "Purged from the trash, deleted spaces.", "ocis.file_trash_delete", "ocis.space_deleted"),
            count("Gaps", "Lines or events that were gone before they could be read.", "daybook.gap_detected", runbook="DaybookGapDetected"),
        ]),
        ("Mail", [
            count("Forged senders", "Failed DKIM and DMARC checks.", "stalwart.dkim_failure", "stalwart.dmarc_failure"),
            count("Refused and spam", "Rejected by policy, filed as spam.", "stalwart.policy_rejection", "stalwart.spam_detected"),
            panel("timeseries", "Refused signatures", "Webhooks with a wrong signature or none: somebody may try to enter events.",
                  [target("sum by (source, reason) (increase(daybook_webhook_refused_total{%s}[$__rate_interval]))" % SOURCE, "{{source}} {{reason}}")], runbook="DaybookWebhookSignatureFailures"),
        ]),
    ]


def everything():
    return {
        "ingest": dashboard("daybook-ingest", "Daybook: ingest", "Do events arrive, and how late?", ingest()),
        "sources": dashboard("daybook-sources", "Daybook: sources", "Each kind of source with its own figures.", sources()),
        "actors": dashboard("daybook-actors", "Daybook: actors", "Restarts, mailboxes, suspensions.", actors(), with_source=False),
        "security": dashboard("daybook-security", "Daybook: security", "What happened that a security officer wants to see.", security()),
        "runbook": runbook_dashboard(),
    }


def main():
    stale = []
    for name, board in everything().items():
        path = FOLDER / f"{name}.json"
        text = json.dumps(board, indent=2, ensure_ascii=False) + "\n"
        if "--check" in sys.argv:
            if not path.exists() or path.read_text() != text:
                stale.append(path.name)
        else:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(text)
    if stale:
        sys.exit(f"not what grafana/generate.py makes: {', '.join(stale)}; run it")


if __name__ == "__main__":
    main()
