//! `daybook demo`.

use clap::Args;

use super::Failure;

#[derive(Args)]
pub(super) struct DemoArgs {}

pub(super) async fn demo(_args: DemoArgs) -> Result<(), Failure> {
    Ok(())
}
