//! How much happened when: bars over the list, each a link to its own time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::layout::{Reader, answer, page, trouble};
use super::view::View;
use super::{kind_of, now, session};
use crate::figures::thousands;
use crate::http::error::ApiError;
use crate::http::query::{EventQuery, confine};
use crate::http::router::Edge;
use crate::store::{Bar, EventFilter, Histogram, Role};

const BARS: u32 = 96;
/// The list does not wait longer for the bars; a script asks for them then.
const PATIENCE: Duration = Duration::from_millis(40);
/// A drawing's height, and the least that anything is drawn with.
const HEIGHT: f64 = 100.0;
const LEAST: f64 = 2.0;
/// What parts of a bar are apart.
const GAP: f64 = 1.5;
const WIDTH: f64 = 960.0;
/// How much of its place a bar fills, and the widest one: few bars are no wall.
const FILL: f64 = 0.85;
const WIDEST: f64 = 48.0;
const LABELS: usize = 5;
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// The bars, or a place for them when they take too long.
pub(super) async fn in_time(edge: &Edge, role: &Role, view: &View, query: &EventQuery) -> Markup {
    let counting = count(edge, role, &query.filter);
    match tokio::time::timeout(PATIENCE, counting).await {
        Ok(Ok(histogram)) => drawing(edge, view, &query.filter, &histogram),
        Ok(Err(_)) | Err(_) => {
            let source = view.href().replacen("/audit", "/audit/histogram", 1);
            html! {
                div #chart.chart.pending data-source=(source) {
                    p.needs-js { "Counting…" }
                    noscript { p { a href=(source) { "Count these events" } } }
                }
            }
        }
    }
}

/// `GET /audit/histogram`: the bars alone, however long they take.
pub(super) async fn get(State(edge): State<Arc<Edge>>, headers: HeaderMap, uri: Uri) -> Response {
    let (view, parsed) = View::of(&uri, now());
    let caller = match session::reader(&edge, &headers, &view).await {
        Ok(caller) => caller,
        Err(instead) => return instead,
    };
    let reader = Reader {
        caller: &caller,
        mode: edge.authenticator.mode(),
    };
    let drawn = async {
        let mut query = parsed?;
        confine(&caller.role, &mut query.filter)?;
        let histogram = count(&edge, &caller.role, &query.filter).await?;
        Ok::<_, ApiError>(drawing(&edge, &view, &query.filter, &histogram))
    };
    match drawn.await {
        Ok(drawing) => {
            let back = html! { (drawing) p { a.button href=(view.href()) { "To the events" } } };
            answer(StatusCode::OK, page("Counts", &view, Some(&reader), &back))
        }
        Err(error) => trouble(&error, &view, Some(&reader)),
    }
}

async fn count(edge: &Edge, role: &Role, filter: &EventFilter) -> Result<Histogram, ApiError> {
    let _turn = edge.queries.histogram(role).await?;
    Ok(edge.store.histogram(filter, BARS).await?)
}

fn drawing(edge: &Edge, view: &View, filter: &EventFilter, histogram: &Histogram) -> Markup {
    let highest = histogram.bars.iter().map(Bar::total).max().unwrap_or(0);
    if highest == 0 {
        return html! { div #chart.chart.none {} };
    }
    let mut by_source: BTreeMap<&str, u64> = BTreeMap::new();
    for (source, count) in histogram.bars.iter().flat_map(|bar| &bar.counts) {
        *by_source.entry(source).or_default() += count;
    }
    // A bar at an end may reach beyond what was asked for, where it counts nothing.
    let counted = |bar: &Bar| {
        let wide = SignedDuration::try_from(histogram.bucket).unwrap_or_default();
        let end = bar.at.checked_add(wide).unwrap_or(Timestamp::MAX);
        let from = filter.since.map_or(bar.at, |since| since.max(bar.at));
        [from, filter.until.map_or(end, |until| until.min(end))]
    };
    let millis = |time: Option<Timestamp>| time.map(Timestamp::as_millisecond);
    let shapes = shapes(&histogram.bars, highest, |source| kind_of(edge, source, ""));
    html! {
        figure #chart.chart data-first=[millis(histogram.bars.first().map(|bar| bar.at))] data-bucket=(histogram.bucket.as_millis()) data-bars=(histogram.bars.len()) data-since=[millis(filter.since)] data-until=[millis(filter.until)] {
            figcaption {
                strong.total { (thousands(histogram.total)) }
                (if histogram.total == 1 { " event" } else { " events" })
                span.each { (bar_width(histogram.bucket)) " a bar" }
                span.legend {
                    @for (source, count) in &by_source {
                        a class={ "k-" (kind_of(edge, source, "")) } href=(view.with(&[("source", Some(source))]).href()) title="Only this source" {
                            (super::text::visible(source, 40)) " " span.count { (thousands(*count)) }
                        }
                    }
                }
            }
            div.plot {
                svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="group" aria-label="Events by time" {
                    @for (number, bar) in histogram.bars.iter().enumerate() {
                        @if bar.total() > 0 {
                            (link(view, bar, counted(bar), Place { number, of: histogram.bars.len() }))
                        }
                    }
                    // Over the light of the bar that somebody is on.
                    @for (kind, shape) in shapes { path class={ "k-" (kind) } d=(shape) {} }
                }
            }
            svg.axis aria-hidden="true" {
                @for (place, at) in ticks(&histogram.bars, histogram.bucket) {
                    text x={ (place) "%" } y="14" data-at=(at) data-show=[shown_as(histogram.bucket)] { (label(at, histogram.bucket)) }
                }
            }
        }
    }
}

/// Where a bar stands.
struct Place {
    number: usize,
    of: usize,
}

/// What a pointer and the keyboard find of a bar: its place in its whole height, and what it says.
fn link(view: &View, bar: &Bar, [from, to]: [Timestamp; 2], place: Place) -> Markup {
    let step = WIDTH / place.of as f64;
    let x = place.number as f64 * step;
    let times = [from, to].map(|at| at.to_string());
    let href = view
        .with(&[
            ("since", Some(&times[0])),
            ("until", Some(&times[1])),
            ("range", None),
        ])
        .href();
    let said: Vec<String> = bar
        .counts
        .iter()
        .map(|(source, count)| {
            format!(
                "{} {}",
                super::text::visible_plain(source, 40),
                thousands(*count)
            )
        })
        .collect();
    let title = format!(
        "{}: {} ({})",
        span(from, to),
        thousands(bar.total()),
        said.join(", ")
    );
    html! {
        a href=(href) {
            title { (title) }
            rect.hit x=(round(x)) y="0" width=(round(step)) height=(HEIGHT) {}
        }
    }
}

/// The parts of all bars, those of a kind as one shape: a browser lays out few shapes sooner than hundreds.
fn shapes(
    bars: &[Bar],
    highest: u64,
    kind_of: impl Fn(&str) -> &'static str,
) -> BTreeMap<&'static str, String> {
    let step = WIDTH / bars.len() as f64;
    let wide = (step * FILL).min(WIDEST);
    let scale = HEIGHT / highest as f64;
    let mut shapes: BTreeMap<&'static str, String> = BTreeMap::new();
    for (number, bar) in bars.iter().enumerate() {
        let x = number as f64 * step + (step - wide) / 2.0;
        // Kinds are stacked in one order, so that a colour stays on its level.
        let mut counts: Vec<(&str, u64)> = bar
            .counts
            .iter()
            .map(|(source, count)| (kind_of(source), *count))
            .collect();
        counts.sort_unstable();
        let mut top = HEIGHT;
        for (kind, count) in counts {
            let gap = if top < HEIGHT { GAP } else { 0.0 };
            let high = (count as f64 * scale).max(LEAST + gap);
            top = (top - high).max(0.0);
            let [x, y, wide, high] = [x, top, wide, high - gap].map(round);
            let shape = shapes.entry(kind).or_default();
            // Writing into a string cannot fail.
            let _infallible = write!(shape, "M{x} {y}h{wide}v{high}h-{wide}z");
        }
    }
    shapes
}

fn round(length: f64) -> f64 {
    (length * 100.0).round() / 100.0
}

/// Times under the plot: some bars' beginnings and the end of the last, with how far along they stand in percent.
fn ticks(bars: &[Bar], bucket: Duration) -> Vec<(f64, Timestamp)> {
    let Some(last) = bars.last() else {
        return Vec::new();
    };
    let wide = SignedDuration::try_from(bucket).unwrap_or_default();
    let end = last.at.checked_add(wide).unwrap_or(Timestamp::MAX);
    let parts = LABELS.min(bars.len() + 1) - 1;
    (0..=parts)
        .map(|part| {
            let number = (bars.len() * part + parts / 2) / parts;
            let place = 100.0 * number as f64 / bars.len() as f64;
            (round(place), bars.get(number).map_or(end, |bar| bar.at))
        })
        .collect()
}

fn label_kind(bucket: Duration) -> &'static str {
    match bucket {
        bucket if bucket < MINUTE => "time",
        bucket if bucket < DAY => "minute",
        _ => "date",
    }
}

/// How a reader's zone shows it. Bars of days are days of UTC: elsewhere they would begin on the day before.
fn shown_as(bucket: Duration) -> Option<&'static str> {
    (bucket < DAY).then(|| label_kind(bucket))
}

/// What a bar covers, in words.
fn span(from: Timestamp, to: Timestamp) -> String {
    let is_within_a_day = to.duration_since(from).unsigned_abs() < DAY;
    let [from, to] = [from, to].map(|at| at.to_zoned(TimeZone::UTC));
    let (begins, ends) = match is_within_a_day {
        true => ("%a %-d %b %Y %H:%M:%S", "%H:%M:%S"),
        false => ("%a %-d %b %Y %H:%M", "%a %-d %b %Y %H:%M"),
    };
    format!("{} – {} UTC", from.strftime(begins), to.strftime(ends))
}

fn label(at: Timestamp, bucket: Duration) -> String {
    let format = match label_kind(bucket) {
        "time" => "%H:%M:%S",
        "minute" => "%-d %b %H:%M",
        _ => "%-d %b %Y",
    };
    at.to_zoned(TimeZone::UTC).strftime(format).to_string()
}

fn bar_width(bucket: Duration) -> String {
    let of = |unit: Duration| bucket.as_secs() / unit.as_secs();
    let (count, unit) = match bucket {
        bucket if bucket < MINUTE => (bucket.as_secs(), "second"),
        bucket if bucket < HOUR => (of(MINUTE), "minute"),
        bucket if bucket < DAY => (of(HOUR), "hour"),
        _ => (of(DAY), "UTC day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_width_is_told_in_its_largest_unit() {
        assert_eq!(bar_width(Duration::from_secs(60)), "1 minute");
        assert_eq!(bar_width(Duration::from_secs(7_200)), "2 hours");
        assert_eq!(bar_width(DAY), "1 UTC day");
    }

    #[test]
    fn a_bar_says_what_it_covers() {
        let from: Timestamp = "2026-08-01T00:00:00Z".parse().unwrap();
        let until = |wide: Duration| span(from, from.checked_add(wide).unwrap());
        assert_eq!(until(HOUR), "Sat 1 Aug 2026 00:00:00 – 01:00:00 UTC");
        assert_eq!(
            until(DAY),
            "Sat 1 Aug 2026 00:00 – Sun 2 Aug 2026 00:00 UTC"
        );
        assert_eq!((shown_as(HOUR), shown_as(DAY)), (Some("minute"), None));
    }

    #[test]
    fn the_axis_says_nothing_twice_and_names_days_where_they_begin() {
        let start: Timestamp = "2026-08-01T00:00:00Z".parse().unwrap();
        for seconds in [1, 30, 60, 1_800, 3_600, 43_200, 86_400, 604_800] {
            let bucket = Duration::from_secs(seconds);
            for count in 1..=BARS {
                let at = |number: u32| start.checked_add(bucket * number).unwrap();
                let bar = |number| Bar {
                    at: at(number),
                    counts: BTreeMap::new(),
                };
                let bars: Vec<Bar> = (0..count).map(bar).collect();
                let ticks = ticks(&bars, bucket);
                assert_eq!(ticks[0], (0.0, start));
                assert_eq!(ticks[ticks.len() - 1], (100.0, at(count)));
                let said: BTreeSet<_> = ticks.iter().map(|tick| label(tick.1, bucket)).collect();
                assert_eq!(said.len(), ticks.len(), "{seconds} {count}: {said:?}");
                for (place, tick) in ticks {
                    let bars = (tick.as_second() - start.as_second()) as f64 / seconds as f64;
                    assert!((100.0 * bars / f64::from(count) - place).abs() < 0.01);
                    let is_midnight = tick.as_second() % 86_400 == 0;
                    assert!(label_kind(bucket) != "date" || is_midnight, "{tick}");
                }
            }
        }
    }

    #[test]
    fn a_kind_is_one_shape_and_parts_of_a_bar_stand_apart() {
        let bar = |counts: &[(&str, u64)]| Bar {
            at: Timestamp::UNIX_EPOCH,
            counts: counts
                .iter()
                .map(|(source, count)| ((*source).to_owned(), *count))
                .collect(),
        };
        let bars = [
            bar(&[("idp", 50), ("files", 50)]),
            bar(&[]),
            bar(&[("files", 100)]),
        ];
        let shapes = shapes(&bars, 100, |source| match source {
            "idp" => "authentik",
            _ => "ocis",
        });
        let wanted = [
            ("authentik", "M136 50h48v50h-48z"),
            ("ocis", "M136 0h48v48.5h-48zM776 0h48v100h-48z"),
        ];
        let shapes = shapes.iter().map(|(kind, shape)| (*kind, shape.as_str()));
        assert_eq!(shapes.collect::<Vec<_>>(), wanted);
    }
}
