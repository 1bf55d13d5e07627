//! Filling servers and looking whether what they hold is right.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::client::plain::Plain;
use crate::content::{Blob, Image, MANIFEST_TYPE, REPOSITORY};
use crate::house::{Goods, Trouble};

/// How long a mirror may take to store what it has passed on.
const STORE_MAX: Duration = Duration::from_secs(20);

/// Each target under which something is served, and the digest of what is there.
pub(crate) fn targets(goods: &Goods) -> Vec<(String, String)> {
    let named = goods.images.iter().flat_map(|image| &image.blobs);
    let blobs = goods.blobs.iter().chain(named);
    let blobs = blobs.map(|blob| (blob.target(), blob.digest.clone()));
    let images = goods.images.iter().flat_map(|image| {
        [image.by_digest(), image.by_tag()].map(|target| (target, image.digest.clone()))
    });
    blobs.chain(images).collect()
}

/// Fetches everything and compares it with its digest.
///
/// # Errors
/// What was not right.
pub(crate) fn prove_all(addr: SocketAddr, goods: &Goods) -> Result<(), Trouble> {
    let mut connection = Plain::open(addr).map_err(|e| format!("{addr}: {e}"))?;
    for (target, digest) in targets(goods) {
        prove(&mut connection, &target, &digest, true)?;
    }
    Ok(())
}

/// Fetches a target whole.
///
/// # Errors
/// What was expected and found.
pub(crate) fn prove(
    connection: &mut Plain,
    target: &str,
    digest: &str,
    compares: bool,
) -> Result<(), Trouble> {
    let request =
        format!("GET {target} HTTP/1.1\r\nHost: bench\r\nAccept: {MANIFEST_TYPE}, */*\r\n\r\n");
    let answer =
        connection.fetch(request.as_bytes(), compares).map_err(|e| format!("GET {target}: {e}"))?;
    if answer.status != 200 {
        let text = String::from_utf8_lossy(&answer.beginning).into_owned();
        return Err(format!("GET {target}: expected 200, found {}: {text}", answer.status).into());
    }
    if compares && answer.digest != digest {
        let (found, bytes) = (&answer.digest, answer.body_bytes);
        let what = format!("GET {target}: expected {digest}, found {found} ({bytes} bytes)");
        return Err(Trouble::Wrong(what));
    }
    Ok(())
}

/// Whether a server lacks any of it.
///
/// # Errors
/// The network's.
pub(crate) fn lacks(connection: &mut Plain, goods: &Goods) -> Result<bool, String> {
    for (target, _) in targets(goods) {
        let request = format!("HEAD {target} HTTP/1.1\r\nHost: bench\r\nAccept: */*\r\n\r\n");
        let answer = connection.ask(request.as_bytes()).map_err(|e| format!("{target}: {e}"))?;
        if answer.status == 404 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Pushes what is not in `pushed` yet, as a client of the distribution API does.
///
/// # Errors
/// What was refused, and how.
pub(crate) fn push(
    connection: &mut Plain,
    goods: &Goods,
    pushed: &mut BTreeSet<String>,
) -> Result<(), String> {
    let named = goods.images.iter().flat_map(|image| image.blobs.iter());
    for blob in goods.blobs.iter().chain(named) {
        if pushed.insert(blob.digest.clone()) {
            push_blob(connection, blob)?;
        }
    }
    for image in &goods.images {
        if pushed.insert(image.tag.clone()) {
            push_manifest(connection, image)?;
        }
    }
    Ok(())
}

fn push_blob(connection: &mut Plain, blob: &Blob) -> Result<(), String> {
    let failed = |what: String| format!("pushing {}: {what}", blob.digest);
    let start = format!("/v2/{REPOSITORY}/blobs/uploads/");
    let begun = connection
        .send("POST", &start, "application/octet-stream", &mut std::io::empty(), 0)
        .map_err(|e| failed(e.to_string()))?;
    let location = begun.header("location").unwrap_or_default();
    if begun.status != 202 || location.is_empty() {
        let text = String::from_utf8_lossy(&begun.beginning);
        return Err(failed(format!("expected 202 and a Location, found {}: {text}", begun.status)));
    }
    // It may be given with the host.
    let path = match location.split_once("://") {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or(location),
        None => location,
    };
    let sign = if path.contains('?') { '&' } else { '?' };
    let target = format!("{path}{sign}digest={}", blob.digest);
    let mut file = File::open(&blob.file).map_err(|e| failed(e.to_string()))?;
    let done = connection
        .send("PUT", &target, "application/octet-stream", &mut file, blob.bytes)
        .map_err(|e| failed(e.to_string()))?;
    if done.status != 201 {
        let text = String::from_utf8_lossy(&done.beginning);
        return Err(failed(format!("expected 201, found {}: {text}", done.status)));
    }
    Ok(())
}

fn push_manifest(connection: &mut Plain, image: &Image) -> Result<(), String> {
    let target = image.by_tag();
    let bytes = image.body.len() as u64;
    let done = connection
        .send("PUT", &target, MANIFEST_TYPE, &mut image.body.as_ref(), bytes)
        .map_err(|e| format!("PUT {target}: {e}"))?;
    if done.status != 201 {
        let text = String::from_utf8_lossy(&done.beginning);
        return Err(format!("PUT {target}: expected 201, found {}: {text}", done.status));
    }
    Ok(())
}

/// Waits until Ringport answers from what it has stored.
///
/// # Errors
/// That it still does not.
pub(crate) fn await_stored(connection: &mut Plain, target: &str) -> Result<(), String> {
    let request = format!("HEAD {target} HTTP/1.1\r\nHost: bench\r\nAccept: */*\r\n\r\n");
    let began = Instant::now();
    loop {
        let answer = connection.ask(request.as_bytes()).map_err(|e| format!("{target}: {e}"))?;
        let status = answer.header("cache-status").unwrap_or_default().to_owned();
        if status.contains("hit") {
            return Ok(());
        }
        if began.elapsed() > STORE_MAX {
            return Err(format!(
                "{target}: expected a hit within {STORE_MAX:?}, found Cache-Status {status:?}"
            ));
        }
        // It has to be asked again and again: a server tells nobody when it has stored something.
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use crate::machine;
    use crate::servers::counting::Counting;

    #[test]
    fn a_layer_of_an_image_that_is_another_one_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let content = Content::below(folder.path()).unwrap();
        let images = content.images("test", 1, &[5000]).unwrap();
        let layer = images[0].blobs[1].clone();
        let goods = Goods { images, ..Goods::default() };
        let origin = Counting::start(folder.path(), &machine::allowed_cores()).unwrap();
        prove_all(origin.addr, &goods).unwrap();
        std::fs::write(&layer.file, [0; 5000]).unwrap();
        let found = prove_all(origin.addr, &goods).unwrap_err();
        let Trouble::Wrong(what) = found else { panic!("{found:?}") };
        assert!(what.contains(&format!("expected {}", layer.digest)), "{what}");
    }
}
