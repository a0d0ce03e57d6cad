//! The kit's page: as text, and as one A4 page of PDF with a QR code.

use std::{fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use pdf_writer::{Content, Finish, Name, Pdf, Rect, Ref, Str};
use qrcode::{EcLevel, QrCode};
use sr_client::{Kit, KitPage};

use crate::{
    failure::Failure,
    output::{printable, time},
    recovery::owner,
};

/// A4 in points.
const PAGE: (f32, f32) = (595.0, 842.0);
const MARGIN: f32 = 56.0;
const LINE: f32 = 15.0;
const QR_SIZE: f32 = 130.0;

/// Returns what the page says, line by line.
fn lines(kit: &Kit, page: &KitPage) -> Vec<String> {
    let code = kit.code();
    let hours = page.delay_s / 3600;
    vec![
        format!("Kit       {}   made {}", kit.id(), time(page.made_s)),
        format!("For       {}", owner(page)),
        format!("Server    {}   ({})", page.server, page.server_name),
        format!("Account   {}", page.account),
        String::new(),
        "The 28 characters:".into(),
        String::new(),
        format!("    {}", code.replace('-', "   ")),
        String::new(),
        "On a new computer, when every device is gone:".into(),
        String::new(),
        format!("    strongroom recovery restore --server {}", page.server),
        String::new(),
        "What this page opens at once: everything that was ever backed up. Whoever holds".into(),
        "it can read all of it without waiting, and nobody is asked.".into(),
        String::new(),
        "It also takes one device out at once, and stops at once what somebody has begun".into(),
        "without it (strongroom device revoke, strongroom recovery veto).".into(),
        String::new(),
        format!(
            "What waits {hours} hours: becoming a device of the account, that is backing up, adding"
        ),
        "devices, changing this kit; and taking a second device out. Every device that is".into(),
        "still yours shows it and can stop it. If only one is left and it is named as".into(),
        "stolen, it can make the wait three times as long, and no more: against a single".into(),
        "device this page wins.".into(),
        String::new(),
        "Without this page, and without recovery contacts, when every device is gone, nobody"
            .into(),
        "can bring anything back: not the operator, not the makers of Strongroom, no court.".into(),
        String::new(),
        "A new kit replaces this one. Then burn this page.".into(),
    ]
}

/// Returns the page as text for a terminal.
pub(crate) fn text(kit: &Kit, page: &KitPage) -> String {
    let rule = "=".repeat(84);
    let body: Vec<String> =
        lines(kit, page).iter().map(|line| printable(line).to_string()).collect();
    format!("{rule}\nSTRONGROOM RECOVERY KIT\n\n{}\n{rule}\n", body.join("\n"))
}

/// Writes the page as a PDF that only its owner reads. A file that is there is not written over.
pub(crate) fn write_pdf(path: &Path, kit: &Kit, page: &KitPage) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::usage(
            format!("{}: {error}", path.display()),
            "Name a file that does not exist yet, in a folder that is not backed up.",
        )
    };
    let pdf = pdf(kit, page).ok_or_else(|| {
        Failure::usage("the page could not be made", "Use the page on the terminal instead.")
    })?;
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(&pdf).and_then(|()| file.sync_all()).map_err(failed)
}

/// What the QR code says: all that `recovery restore` asks for.
fn qr_text(kit: &Kit, page: &KitPage) -> zeroize::Zeroizing<String> {
    zeroize::Zeroizing::new(format!("STRONGROOM-KIT:1:{}:{}", page.server, *kit.code()))
}

fn pdf(kit: &Kit, page: &KitPage) -> Option<zeroize::Zeroizing<Vec<u8>>> {
    let (catalog, pages, sheet, mono, bold, content_id) =
        (Ref::new(1), Ref::new(2), Ref::new(3), Ref::new(4), Ref::new(5), Ref::new(6));
    let mut pdf = Pdf::new();
    pdf.catalog(catalog).pages(pages);
    pdf.pages(pages).kids([sheet]).count(1);
    let mut leaf = pdf.page(sheet);
    leaf.media_box(Rect::new(0.0, 0.0, PAGE.0, PAGE.1)).parent(pages).contents(content_id);
    let mut resources = leaf.resources();
    resources.fonts().pair(Name(b"M"), mono).pair(Name(b"B"), bold);
    resources.finish();
    leaf.finish();
    for (font, name) in [(mono, &b"Courier"[..]), (bold, b"Helvetica-Bold")] {
        let encoding = Name(b"WinAnsiEncoding");
        pdf.type1_font(font).base_font(Name(name)).encoding_predefined(encoding);
    }

    let mut content = Content::new();
    let mut y = PAGE.1 - MARGIN;
    write_line(&mut content, b"B", 20.0, y, "Strongroom recovery kit");
    y -= 2.0 * LINE;
    for line in lines(kit, page) {
        let is_code = line.starts_with("    ") && !line.contains("strongroom");
        let (font, size): (&[u8], f32) = if is_code { (b"M", 14.0) } else { (b"M", 9.5) };
        write_line(&mut content, font, size, y, &line);
        y -= LINE;
    }
    let code =
        QrCode::with_error_correction_level(qr_text(kit, page).as_bytes(), EcLevel::M).ok()?;
    draw_qr(&mut content, &code, y - QR_SIZE);
    pdf.stream(content_id, &content.finish());
    Some(zeroize::Zeroizing::new(pdf.finish()))
}

fn write_line(content: &mut Content, font: &[u8], size: f32, y: f32, line: &str) {
    // The built-in fonts have Latin-1 only.
    let latin: Vec<u8> = line.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect();
    content.begin_text();
    content.set_font(Name(font), size).next_line(MARGIN, y).show(Str(&latin));
    content.end_text();
}

fn draw_qr(content: &mut Content, code: &QrCode, y: f32) {
    let width = code.width();
    #[expect(clippy::cast_precision_loss, reason = "a QR code has at most 177 modules a side")]
    let module = QR_SIZE / width as f32;
    for (place, color) in code.to_colors().into_iter().enumerate() {
        if color == qrcode::Color::Dark {
            #[expect(clippy::cast_precision_loss, reason = "as above")]
            let (column, row) = ((place % width) as f32, (width - 1 - place / width) as f32);
            content.rect(MARGIN + column * module, y + row * module, module, module);
        }
    }
    content.fill_nonzero();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_characters_and_fits() {
        let kit = Kit::from_text("0000-0000-0000-0000-0000-0000-0000").expect("a kit");
        let page = KitPage {
            server: "cloud.example.org:7443".into(),
            server_name: "4F7K-Q2M9".into(),
            account: sr_wire::AccountId([7; 32]),
            name: Some("Ana".into()),
            made_s: 1_700_000_000,
            delay_s: 259_200,
        };
        let shown = text(&kit, &page);
        assert!(shown.contains("0000   0000"));
        assert!(shown.contains("What waits 72 hours"));
        let pdf = pdf(&kit, &page).expect("makes");
        assert!(pdf.starts_with(b"%PDF-"));
        let lines = u8::try_from(lines(&kit, &page).len()).expect("few");
        assert!(f32::from(lines + 2) * LINE + QR_SIZE + 2.0 * MARGIN < PAGE.1, "one page");
    }
}
