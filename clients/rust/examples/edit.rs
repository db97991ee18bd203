//! Types a text at the end of a document, waits until it is on the server's disk, and exits.
//!
//! ```sh
//! cargo run -p syncline-client --example edit -- ws://localhost:4400 team/notes "Hello, world"
//! ```

use automerge::{AutomergeError, ObjType, ROOT, ReadDoc, transaction::Transactable};
use std::{env, error::Error, time::Duration};
use syncline_client::{Client, DocumentId, Options, TokenSource};
use tokio::time::timeout;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (url, document, text, token) = match &arguments[..] {
        [url, document, text] => (url, document, text.clone(), TokenSource::None),
        [url, document, text, token] => (url, document, text.clone(), TokenSource::Fixed(token.clone())),
        _ => return Err("usage: edit URL DOCUMENT TEXT [TOKEN]".into()),
    };
    let document: DocumentId = document.parse()?;
    let client = Client::connect(Options {
        token,
        ..Options::new(url)
    })?;
    let handle = client.open(document).await?;
    let unreachable = |_| format!("no answer from {url} in 30 s");
    timeout(Duration::from_secs(30), handle.when_ready())
        .await
        .map_err(unreachable)??;
    handle
        .change(move |tx| {
            let object = match tx.get(ROOT, "text")? {
                Some((_, object)) => object,
                None => tx.put_object(ROOT, "text", ObjType::Text)?,
            };
            let end = tx.length(&object);
            tx.splice_text(&object, end, 0, &text)?;
            Ok::<_, AutomergeError>(())
        })
        .await?;
    handle.when_durable().await?;
    client.close().await;
    Ok(())
}
