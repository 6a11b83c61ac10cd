//! `pilothouse image`: images of the embedded runtime, through its CRI socket.

use super::PlaceArgs;
use crate::place::Place;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Loads images from an archive (`docker save` or OCI layout)
    Load(LoadArgs),
    /// Pulls an image from its registry
    Pull(OneImage),
    /// Lists images
    List(PlaceArgs),
    /// Removes an image
    Rm(OneImage),
}

#[derive(Debug, Args)]
pub struct LoadArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// The archive
    file: PathBuf,
}

#[derive(Debug, Args)]
pub struct OneImage {
    #[command(flatten)]
    place: PlaceArgs,
    /// The image, as a pod would name it
    image: String,
}

#[allow(clippy::print_stdout, reason = "what a command tells its caller")]
fn say(text: &str) {
    println!("{text}");
}

/// Carries out a command by the running cluster's runtime.
pub fn run(command: ImageCommand) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            ImageCommand::Load(args) => load(args).await,
            ImageCommand::Pull(args) => pull(args).await,
            ImageCommand::List(place) => list(&place).await,
            ImageCommand::Rm(args) => remove(args).await,
        }
    })
}

async fn connect(args: &PlaceArgs) -> Result<cri::Client> {
    let place = Place::new(&args.data_dir)?;
    if let Err(e) = tokio::net::UnixStream::connect(&place.cri_socket).await {
        bail!(
            "the runtime is not reached at {} ({e}): is the cluster up, and is this its --data-dir?",
            place.cri_socket.display()
        );
    }
    Ok(cri::Client::connect(&place.cri_socket))
}

fn refused(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{}", status.message())
}

async fn load(args: LoadArgs) -> Result<()> {
    let file = std::path::absolute(&args.file)?;
    if !file.is_file() {
        bail!("{} is no file", file.display());
    }
    let client = connect(&args.place).await?;
    let archive = tokio::fs::File::open(&file).await.with_context(|| format!("cannot open {}", file.display()))?;
    let loaded =
        client.load_images(archive, |_| {}).await.with_context(|| format!("{} was not loaded", file.display()))?;
    for image in loaded {
        let names = if image.names.is_empty() { image.id } else { image.names.join(", ") };
        say(&format!("loaded {names}"));
    }
    Ok(())
}

async fn pull(args: OneImage) -> Result<()> {
    let client = connect(&args.place).await?;
    let spec = cri::v1::ImageSpec { image: args.image.clone(), ..Default::default() };
    let request = cri::v1::PullImageRequest { image: Some(spec), ..Default::default() };
    let pulled = client.image().pull_image(request).await.map_err(refused)?.into_inner();
    say(&format!("pulled {} ({})", args.image, pulled.image_ref));
    Ok(())
}

async fn list(place: &PlaceArgs) -> Result<()> {
    let client = connect(place).await?;
    let images =
        client.image().list_images(cri::v1::ListImagesRequest::default()).await.map_err(refused)?.into_inner().images;
    say(&format!("{:<64} {:<14} {:>10}", "IMAGE", "ID", "SIZE"));
    for image in images {
        let id: String = image.id.trim_start_matches("sha256:").chars().take(12).collect();
        let size = format!("{:.1} MiB", image.size as f64 / f64::from(1 << 20));
        let names = if image.repo_tags.is_empty() { image.repo_digests } else { image.repo_tags };
        for name in names {
            say(&format!("{name:<64} {id:<14} {size:>10}"));
        }
    }
    Ok(())
}

async fn remove(args: OneImage) -> Result<()> {
    let client = connect(&args.place).await?;
    let spec = cri::v1::ImageSpec { image: args.image.clone(), ..Default::default() };
    let status = cri::v1::ImageStatusRequest { image: Some(spec.clone()), verbose: false };
    if client.image().image_status(status).await.map_err(refused)?.into_inner().image.is_none() {
        bail!("there is no image {}", args.image);
    }
    client.image().remove_image(cri::v1::RemoveImageRequest { image: Some(spec) }).await.map_err(refused)?;
    say(&format!("removed {}", args.image));
    Ok(())
}
