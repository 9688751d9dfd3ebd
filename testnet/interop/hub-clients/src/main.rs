//! `hub-clients old|new ORG/NAME DIR`: downloads every file of a model with the crate `hf-hub` of that age, and compares it
//! with the one in the directory. Prints what went wrong, and ends with 1 then.

use std::{env, error::Error, fs, path::Path, process::ExitCode};

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["old", name, dir] => old(name, Path::new(dir)),
        ["new", name, dir] => new(name, Path::new(dir)),
        _ => Err("say which: old|new ORG/NAME DIR".into()),
    };
    match done {
        Ok(files) => {
            println!("{files} files, all the same");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// As programs on hf-hub 0.5 do it: a request for the first byte of each file, and then the rest in a range.
fn old(name: &str, dir: &Path) -> Result<usize, Box<dyn Error>> {
    let api = hf_hub_old::api::sync::ApiBuilder::from_env().with_token(env::var("HF_TOKEN").ok()).with_progress(false);
    let repo = api.build()?.model(name.to_owned());
    let files = repo.info()?.siblings;
    for file in &files {
        compare(&repo.get(&file.rfilename)?, dir, &file.rfilename)?;
    }
    Ok(files.len())
}

/// As programs on hf-hub 1.0 do it.
fn new(name: &str, dir: &Path) -> Result<usize, Box<dyn Error>> {
    let (organisation, model) = name.split_once('/').ok_or("a name is ORG/NAME")?;
    let repo = hf_hub_new::HFClientSync::new()?.model(organisation, model);
    let snapshot = repo.snapshot_download().send()?;
    let mut files = 0;
    let mut folders = vec![snapshot.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let file = path.strip_prefix(&snapshot)?.to_str().ok_or("UTF-8")?.to_owned();
                compare(&path, dir, &file)?;
                files += 1;
            }
        }
    }
    Ok(files)
}

fn compare(got: &Path, dir: &Path, file: &str) -> Result<(), Box<dyn Error>> {
    if fs::read(got)? == fs::read(dir.join(file))? { Ok(()) } else { Err(format!("{file} differs").into()) }
}
