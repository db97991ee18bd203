//! Lists the built demo page, so that the server can hold it: every file of `clients/demo/dist` with its path on the
//! server, its bytes, and its gzip if the page's build left one beside it. Without a built page the list is empty.
//! The sources of the page are none of its business; `make page` builds them.

use std::{
    env,
    error::Error,
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
};

const PAGE: &str = "clients/demo/dist";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_SERVER").is_none() {
        return Ok(());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    // Cargo takes a path that is not there for changed and would build everything anew each time. Where the folder cannot
    // be made, that is all that happens.
    let _ = fs::create_dir_all(&root);
    println!("cargo::rerun-if-changed={PAGE}");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(out.join("page_files.rs"), list(&root)?)?;
    Ok(())
}

/// A Rust expression: a slice with one `File` for each file of the page.
fn list(root: &Path) -> Result<String, Box<dyn Error>> {
    let mut text = String::from("&[\n");
    if root.join("index.html").is_file() {
        for path in files(root)? {
            let below = path.strip_prefix(root)?.to_str().ok_or("names in the page are UTF-8")?;
            if below.ends_with(".gz") || below.ends_with(".map") {
                continue;
            }
            let gzip = PathBuf::from(format!("{}.gz", path.display()));
            let gzip = if gzip.is_file() {
                format!("Some(include_bytes!({gzip:?}))")
            } else {
                "None".to_owned()
            };
            let below = below.replace('\\', "/");
            writeln!(
                text,
                "    File {{ path: {below:?}, plain: include_bytes!({path:?}), gzip: {gzip} }},"
            )?;
        }
    }
    text.push(']');
    Ok(text)
}

/// All files below a folder, in order of their paths.
fn files(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = vec![root.to_path_buf()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
