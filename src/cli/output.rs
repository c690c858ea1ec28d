//! What a command writes, so that it goes on hearing signals while its reader reads nothing.

use std::io::ErrorKind;
use std::os::fd::AsFd as _;

use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

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
