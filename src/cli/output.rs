//! What a command writes, so that it goes on hearing signals while its reader reads nothing, and ends quietly when its
//! reader has gone.

use std::fmt::{Arguments, Write as _};
use std::io::{ErrorKind, Write as _};
use std::os::fd::AsFd as _;

use serde::Serialize;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

use crate::event::hidden::told_apart;

/// A line on standard output, like `println!`, which panics when a pipe is closed.
macro_rules! say {
    ($($what:tt)*) => {
        $crate::cli::output::line(format_args!($($what)*))
    };
}
pub(super) use say;

/// Writes a line.
pub(super) fn line(what: Arguments<'_>) -> Result<(), anyhow::Error> {
    print(format!("{what}\n").as_bytes())
}

/// Writes these bytes. That their reader has gone or has seen enough (`| head`) is no error.
pub(super) fn print(bytes: &[u8]) -> Result<(), anyhow::Error> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("cannot write to standard output"))
        }
        _ => Ok(()),
    }
}

/// In place of the line before; a terminal that has gone ends nothing.
pub(super) fn draw(line: &str) {
    // Cut at its edge, not wrapped: of two lines only the second would be drawn over.
    let _gone = write!(std::io::stderr(), "\r\u{1b}[K\u{1b}[?7l{line}\u{1b}[?7h");
}

/// Text in which nothing acts on a terminal: control characters, and those that change the
/// direction of writing or cannot be seen, stand as escapes.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for (character, is_hidden) in told_apart(text) {
        if is_hidden {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// The same text, and the same JSON, with everything that acts on a terminal as `\u` escapes, but for
/// what `stays`, which is asked about every character in turn.
pub(super) fn escaped(text: &str, mut stays: impl FnMut(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for (character, is_hidden) in told_apart(text) {
        if stays(character) || !is_hidden {
            shown.push(character);
            continue;
        }
        let mut units = [0; 2];
        for unit in character.encode_utf16(&mut units) {
            let _infallible = write!(shown, "\\u{unit:04x}");
        }
    }
    shown
}

/// JSON with indents, in which nothing acts on a terminal either.
pub(super) fn pretty(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let json = serde_json::to_string_pretty(value)?;
    Ok(escaped(&json, |character| character == '\n'))
}

/// Standard output; what blocks on it is another thread.
pub(super) fn standard_output() -> std::io::Result<File> {
    let out = std::io::stdout().as_fd().try_clone_to_owned()?;
    Ok(File::from_std(out.into()))
}

/// Writes all of it. Given up half-way, some of it may be written still.
pub(super) async fn write(out: &mut File, bytes: &[u8]) -> std::io::Result<()> {
    out.write_all(bytes).await?;
    out.flush().await
}

/// Whether the reader has gone.
pub(super) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>())
        .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Whether the terminal takes no codes, for colours or anything else.
pub(super) fn is_dumb_terminal() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}
