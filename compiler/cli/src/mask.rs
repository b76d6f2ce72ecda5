//! `drawloom mask`: pictures of masks, and where two of them differ.

use crate::exit::Exit;
use crate::input::{pair, specs};
use crate::report::{Done, Failure, Out};
use clap::ValueEnum;
use drawloom_lang::eval::Value;
use drawloom_lang::picture::{Cover, LEGEND, Mask};
use drawloom_lang::picture_size;
use drawloom_lang::spec::{AxisId, AxisRole, Dtype, ScalarId, Spec, Stage};
use serde::Serialize;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// Arguments of `drawloom mask`.
#[derive(clap::Args)]
#[command(after_help = "\
Queries run downwards, keys to the right. What a caller would pass is made up unless it is given: an integer table cuts \
its axis into 4 documents, a real one holds 1, an integer scalar is a quarter of the keys, a real one 1. With --tile \
every point of every tile is looked at: full tiles run without mask code, cut ones evaluate the mask, empty ones are \
skipped.

Examples:
  drawloom mask specs/causal.attn
  drawloom mask specs/streaming.attn --size i=4096,j=4096 --tile 128x64
  drawloom mask specs/document.attn --size i=512,j=512 --out mask.svg
  drawloom mask specs/causal.attn --diff specs/streaming.attn --size i=2048,j=2048")]
pub struct Args {
    /// Spec file.
    path: PathBuf,
    /// Sizes of axes, as `i=512,j=512`; without one, as large as shows the mask's edges.
    #[arg(long, value_delimiter = ',', value_name = "AXIS=SIZE")]
    size: Vec<String>,
    /// Where to look on other axes, as `h=3`; 0 by default.
    #[arg(long, value_delimiter = ',', value_name = "AXIS=INDEX")]
    at: Vec<String>,
    /// Values of run-time scalars, as `w=64`.
    #[arg(long, value_delimiter = ',', value_name = "NAME=VALUE")]
    scalar: Vec<String>,
    /// Lay the tiles of a kernel over it: queries x keys.
    #[arg(long, value_parser = tile, value_name = "MxN")]
    tile: Option<(usize, usize)>,
    /// How to draw; by default as the name of `--out` ends, else in characters.
    #[arg(long)]
    view: Option<View>,
    /// Where the picture goes.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Name the first point where this spec's mask differs, and end with exit code 3 if there is one.
    #[arg(long, value_name = "SPEC")]
    diff: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum View {
    /// Characters.
    Term,
    /// Scalable vector graphics.
    Svg,
    /// Portable network graphics.
    Png,
}

fn tile(text: &str) -> Result<(usize, usize), String> {
    let parsed = text
        .split_once('x')
        .and_then(|(m, n)| Some((m.parse().ok()?, n.parse().ok()?)));
    parsed
        .filter(|(m, n)| *m > 0 && *n > 0)
        .ok_or_else(|| "expected QUERIESxKEYS, as 128x64".to_owned())
}

#[derive(Serialize)]
struct Drawn {
    spec: String,
    queries: usize,
    keys: usize,
    tiles: Option<Tiles>,
    /// The picture, unless it went to a file or is no text.
    picture: Option<String>,
}

#[derive(Serialize)]
struct Tiles {
    queries: usize,
    keys: usize,
    full: usize,
    partial: usize,
    empty: usize,
}

#[derive(Serialize)]
struct Compared {
    specs: [String; 2],
    queries: usize,
    keys: usize,
    /// Points that one of the two sees and the other does not.
    different: usize,
    first: Option<Difference>,
}

/// A point where two masks differ.
#[derive(Serialize)]
struct Difference {
    query: usize,
    key: usize,
    /// The spec that sees it.
    visible: String,
    /// The one that does not.
    hidden: String,
}

/// Pixels of the longer side of an SVG, at which it scales; least pixels of a PNG.
const SIDE: usize = 512;

/// The most points that are compared one by one.
const POINTS: usize = 1 << 28;

/// Runs the command.
pub fn mask(args: &Args, out: &Out) -> Result<Done, Failure> {
    let drawn = specs(std::slice::from_ref(&args.path))?;
    if let Some(other) = &args.diff {
        let others = specs(std::slice::from_ref(other))?;
        return match (drawn.as_slice(), others.as_slice()) {
            ([a], [b]) => diff(args, a, b, out),
            _ => Err(Failure::given("--diff compares files with one spec each")),
        };
    }
    let view = view(args);
    if drawn.len() > 1 && (args.out.is_some() || view != View::Term) {
        return Err(Failure::given(format!(
            "{} has {} specs: a picture file holds one",
            args.path.display(),
            drawn.len()
        )));
    }
    let mut all = Vec::new();
    for spec in &drawn {
        let mask = of(args, spec, None)?;
        let (queries, keys) = mask.size();
        let tiles = match args.tile {
            None => None,
            Some(_) if queries.saturating_mul(keys) > POINTS => {
                return Err(Failure::given(format!(
                    "{queries} x {keys} points are more than the {POINTS} that --tile looks at"
                )));
            }
            Some((m, n)) => Some(mask.tiles(m, n)),
        };
        let title = format!("{}: {queries} queries, {keys} keys", spec.name);
        let bytes = match view {
            View::Term => mask.picture(tiles.as_ref()).into_bytes(),
            View::Svg => mask.paint(tiles.as_ref()).svg(&title, SIDE).into_bytes(),
            View::Png => {
                let painting = mask.paint(tiles.as_ref());
                let (width, height, _) = painting.points(1);
                png(painting.points(SIDE.div_ceil(width.max(height).max(1))))?
            }
        };
        let counts = tiles.map(|tiles| Tiles {
            queries: tiles.down,
            keys: tiles.across,
            full: tiles.count(Cover::Full),
            partial: tiles.count(Cover::Partial),
            empty: tiles.count(Cover::Empty),
        });
        let mut picture = None;
        match &args.out {
            Some(path) => {
                std::fs::write(path, &bytes).map_err(|e| Failure::io(path.display(), e))?;
                out.line(format!("wrote {}", path.display()));
            }
            None if view == View::Png => {
                if !out.is_human() || std::io::stdout().is_terminal() {
                    return Err(Failure::given("a PNG is no text: give --out FILE"));
                }
                out.raw(&bytes);
            }
            None => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                if view == View::Term {
                    out.line(&title);
                }
                out.print(&text);
                picture = Some(text);
            }
        }
        if let (View::Term, Some(tiles)) = (view, &counts) {
            out.line(format!(
                "tiles of {} x {}: {} full, {} cut, {} skipped\n{LEGEND}",
                tiles.queries, tiles.keys, tiles.full, tiles.partial, tiles.empty
            ));
        }
        all.push(Drawn {
            spec: spec.name.clone(),
            queries,
            keys,
            tiles: counts,
            picture,
        });
    }
    Done::with(all)
}

fn view(args: &Args) -> View {
    let end = args
        .out
        .as_deref()
        .and_then(Path::extension)
        .and_then(|end| end.to_str());
    match (args.view, end) {
        (Some(view), _) => view,
        (None, Some("svg")) => View::Svg,
        (None, Some("png")) => View::Png,
        (None, _) => View::Term,
    }
}

/// The mask that the options describe; sizes that they leave open are those of `like`, or show the edges of the mask.
fn of<'s>(args: &Args, spec: &'s Spec, like: Option<(usize, usize)>) -> Result<Mask<'s>, Failure> {
    let number = |given: &str| -> Result<(String, i64), Failure> {
        let (name, value) = pair(given).map_err(Failure::given)?;
        let value = value.parse().ok().filter(|n| (0..=i64::from(i32::MAX)).contains(n));
        let value = value.ok_or_else(|| Failure::given(format!("`{given}` gives no whole number")))?;
        Ok((name.to_owned(), value))
    };
    let sizes: Vec<(String, i64)> = args.size.iter().map(|s| number(s)).collect::<Result<_, _>>()?;
    let places: Vec<(String, i64)> = args.at.iter().map(|s| number(s)).collect::<Result<_, _>>()?;
    let axis = |name: &str| -> Result<AxisId, Failure> {
        let at = spec.axes.iter().position(|axis| axis.name == name);
        at.map(|n| AxisId(n as u32))
            .ok_or_else(|| Failure::given(format!("`{}` has no axis `{name}`", spec.name)))
    };
    for (name, _) in sizes.iter().chain(&places) {
        axis(name)?;
    }
    let size_of = |id: AxisId| {
        let name = &spec.axes[id.index()].name;
        sizes.iter().rfind(|(given, _)| given == name).map(|(_, n)| *n)
    };
    let Some(Stage::Attend(attend)) = spec.stages.first() else {
        return Err(Failure::given(format!("`{}` has no mask", spec.name)));
    };
    let usual = picture_size(spec);
    let (rows, cols) = like.unwrap_or((usual, usual));
    let rows = size_of(attend.query).map_or(rows, |n| n as usize);
    let cols = size_of(attend.key).map_or(cols, |n| n as usize);
    let missing = || Failure::given(format!("`{}` has no mask", spec.name));
    let mut mask = Mask::new(spec, rows, cols).ok_or_else(missing)?;
    for (n, declared) in spec.axes.iter().enumerate() {
        let id = AxisId(n as u32);
        let index = places
            .iter()
            .rfind(|(name, _)| *name == declared.name)
            .map(|(_, at)| *at);
        if declared.role != AxisRole::Plain && index.is_some() {
            return Err(Failure::given(format!("`{}` is drawn: it has no index", declared.name)));
        }
        if declared.role == AxisRole::Plain && (index.is_some() || size_of(id).is_some()) {
            let index = index.unwrap_or(0);
            mask = mask.at(id, index, size_of(id).unwrap_or(index + 1));
        }
    }
    for given in &args.scalar {
        let (name, value) = pair(given).map_err(Failure::given)?;
        let at = spec.scalars.iter().position(|scalar| scalar.name == name);
        let at = at.ok_or_else(|| Failure::given(format!("`{}` has no scalar `{name}`", spec.name)))?;
        let value = match spec.scalars[at].ty {
            Dtype::I32 => value.parse().ok().map(Value::Int),
            Dtype::F16 | Dtype::Bf16 | Dtype::F32 => value.parse().ok().map(Value::Real),
        };
        let value = value.ok_or_else(|| Failure::given(format!("`{given}` gives no value for `{name}`")))?;
        mask = mask.with(ScalarId(at as u32), value);
    }
    Ok(mask)
}

fn png((width, height, points): (usize, usize, Vec<[u8; 3]>)) -> Result<Vec<u8>, Failure> {
    let bug = |error: png::EncodingError| Failure::bug(format!("a PNG: {error}"));
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width.max(1) as u32, height.max(1) as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut data = points.concat();
    data.resize(3 * width.max(1) * height.max(1), 0xf4);
    let mut writer = encoder.write_header().map_err(bug)?;
    writer.write_image_data(&data).map_err(bug)?;
    writer.finish().map_err(bug)?;
    Ok(bytes)
}

fn diff(args: &Args, a: &Spec, b: &Spec, out: &Out) -> Result<Done, Failure> {
    let usual = picture_size(a).max(picture_size(b));
    let (one, two) = (of(args, a, Some((usual, usual)))?, of(args, b, Some((usual, usual)))?);
    let (queries, keys) = one.size();
    if one.size() != two.size() {
        return Err(Failure::given(
            "the two masks have axes of other names: give --size for both",
        ));
    }
    if queries.saturating_mul(keys) > POINTS {
        return Err(Failure::given(format!(
            "{queries} x {keys} points are more than the {POINTS} that are compared"
        )));
    }
    let points = (0..queries).flat_map(|query| (0..keys).map(move |key| (query, key)));
    let mut different = points
        .filter(|&(query, key)| one.sees(query, key) != two.sees(query, key))
        .peekable();
    let first = different.peek().map(|&(query, key)| {
        let (visible, hidden) = if one.sees(query, key) { (a, b) } else { (b, a) };
        Difference {
            query,
            key,
            visible: visible.name.clone(),
            hidden: hidden.name.clone(),
        }
    });
    let compared = Compared {
        specs: [a.name.clone(), b.name.clone()],
        queries,
        keys,
        different: different.count(),
        first,
    };
    let said = compared.first.as_ref().map(|first| {
        format!(
            "query {} sees key {} in `{}`, not in `{}`: the first of {} points of {queries} x {keys} that differ",
            first.query, first.key, first.visible, first.hidden, compared.different
        )
    });
    if said.is_none() {
        out.line(format!("no difference in {queries} x {keys} points"));
    }
    Ok(Done::with(compared)?.unless(Exit::Differs, said.into_iter().collect()))
}
