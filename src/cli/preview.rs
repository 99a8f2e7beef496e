//! `postrider preview`: what the recipient would read, and what would stop it.

use serde_json::{Value, json};

use super::{Context, Exit, enqueue::json_value};
use crate::store::enqueue::{Preview, preview};

/// Arguments of `postrider preview`.
#[derive(Debug, clap::Args)]
pub(super) struct PreviewArgs {
    /// Where it would go
    recipient: String,
    /// The template's name
    template: String,
    /// A variable of the body, in order
    #[arg(long = "param", value_name = "VALUE", conflicts_with = "parameters")]
    params: Vec<String>,
    /// All parameters as JSON
    #[arg(long, value_name = "JSON", value_parser = json_value)]
    parameters: Option<Value>,
    /// The template's language [default: as for enqueue]
    #[arg(long)]
    language: Option<String>,
}

/// Exits 1 when something would stop it, so that a script can ask.
pub(super) async fn run(args: PreviewArgs, context: &Context) -> anyhow::Result<Exit> {
    let database = context.database().await?;
    let parameters = args.parameters.unwrap_or_else(|| match &args.params[..] {
        [] => json!({}),
        params => json!({ "body": params }),
    });
    let pool = database.store.pool();
    let preview = preview(
        pool,
        &args.recipient,
        &args.template,
        &parameters,
        args.language.as_deref(),
    )
    .await?;
    context.output.one(&preview, || text(&preview))?;
    Ok(if preview.issues.is_empty() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

fn text(preview: &Preview) -> String {
    let body = preview
        .text
        .as_deref()
        .unwrap_or("(nothing is known of that template; has it been synced?)");
    let issues = match &preview.issues[..] {
        [] => "\n\nNothing would stop it.".to_owned(),
        issues => issues
            .iter()
            .fold("\n\nIt would be stopped:".to_owned(), |text, issue| {
                text + "\n  " + issue
            }),
    };
    format!("{body}{issues}")
}
