//! A job log without its machine parts.

/// Bytes of the header that `FF_TIMESTAMPS` puts in front of each line.
const HEADER: usize = 32;

/// The log as a person reads it in GitLab: without timestamps, section marks and colours; lines that were cut are whole
/// again. Lines of different streams must not have been cut in each other's midst.
#[must_use]
pub fn plain(log: &str) -> String {
    let mut text = String::with_capacity(log.len());
    for line in log.split_inclusive('\n') {
        let Some((header, rest)) = line.split_at_checked(HEADER).filter(|(header, _)| is_header(header))
        else {
            text.push_str(line);
            continue;
        };
        if header.ends_with('+') && text.ends_with('\n') {
            text.pop();
        }
        text.push_str(rest);
    }
    without_marks(&text)
}

fn is_header(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes[4] == b'-'
        && bytes[10] == b'T'
        && bytes[26] == b'Z'
        && bytes[27] == b' '
        && b" +".contains(&bytes[31])
}

/// Takes out escape sequences of colours and line erasing, and `section_...` up to its carriage return.
fn without_marks(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['\u{1b}', 's']) {
        let (before, found) = rest.split_at(at);
        out.push_str(before);
        let mark = if found.starts_with("\u{1b}[") {
            found.find(['m', 'K']).map(|end| end + 1)
        } else if found.starts_with("section_start:") || found.starts_with("section_end:") {
            found.find('\r').map(|end| end + 1)
        } else {
            None
        };
        match mark {
            Some(end) => rest = &found[end..],
            None => {
                out.push_str(&found[..1]);
                rest = &found[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_marks_and_colours_are_taken_out_and_cut_lines_joined() {
        let log = "2026-08-22T10:15:30.123456Z 00O \u{1b}[0Ksection_start:1:a\r\u{1b}[0K\u{1b}[36;1mTitle\u{1b}[0;m\n\
                   2026-08-22T10:15:30.123456Z 01O so \n2026-08-22T10:15:30.123456Z 01O+far\nbare\n";
        assert_eq!(plain(log), "Title\nso far\nbare\n");
    }
}
