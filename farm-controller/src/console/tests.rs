//! Every screen against its golden text, and what keys do.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use roadbed_protocol::{RigId, Workload};

use super::desk::{Desk, Key, Outcome};
use super::{draw, sample};
use crate::view::{Action, FarmView};

fn screen(view: &FarmView, keys: &[Key]) -> String {
    let mut desk = Desk::new("ann".into());
    for key in keys {
        desk.press(*key, view);
    }
    let mut terminal = Terminal::new(TestBackend::new(120, 22)).unwrap();
    terminal.draw(|frame| draw::frame(frame, view, &desk)).unwrap();
    terminal.backend().to_string()
}

#[test]
fn fleet() {
    insta::assert_snapshot!(screen(&sample::view(), &[]));
}

#[test]
fn a_line_says_where_the_chain_stands() {
    let mut view = sample::view();
    view.gonka = Some(Box::new(sample::gonka()));
    let text = screen(&view, &[]);
    insta::assert_snapshot!(text.lines().take(6).collect::<Vec<_>>().join("\n"));
    view.gonka = Some(Box::default());
    assert!(screen(&view, &[]).contains("gonka: where the chain stands is not known"));
}

#[test]
fn rig() {
    insta::assert_snapshot!(screen(&sample::view(), &[Key::Enter]));
}

#[test]
fn every_pool_of_a_mining_rig_is_shown() {
    let mut view = sample::view();
    view.rigs[0].pools = sample::pools();
    let text = screen(&view, &[Key::Enter]);
    for words in [
        "hashing      75 % of hashes  stratum+ssl://pool.example:443",
        "difficulty 0.5: 41 accepted, 3 refused (2 stale, 0 duplicate, 1 too easy, 0 other), 0 unanswered, answers in 35 ms",
        "away         25 % of hashes  stratum2+tcp://other.example:3333/KEY  it closed the connection",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn plan() {
    insta::assert_snapshot!(screen(&sample::view(), &[Key::Letter('3')]));
}

#[test]
fn log() {
    insta::assert_snapshot!(screen(&sample::view(), &[Key::Letter('4')]));
}

#[test]
fn question() {
    insta::assert_snapshot!(screen(&sample::view(), &[Key::Letter('a'), Key::Letter('h')]));
}

#[test]
fn nothing_is_known_yet() {
    let view = FarmView::default();
    for keys in [&[][..], &[Key::Enter], &[Key::Letter('3')], &[Key::Letter('4')]] {
        assert!(screen(&view, keys).contains("q leave"));
    }
}

#[test]
fn no_size_of_terminal_panics() {
    let view = sample::view();
    for (width, height) in [(1, 1), (5, 3), (20, 8), (300, 100)] {
        for letter in ['1', '2', '3', '4', '?'] {
            let mut desk = Desk::new("ann".into());
            desk.press(Key::Letter(letter), &view);
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| draw::frame(frame, &view, &desk)).unwrap();
        }
    }
}

#[test]
fn nothing_happens_before_the_operator_confirms() {
    let view = sample::view();
    let mut desk = Desk::new("ann".into());
    assert_eq!(desk.press(Key::Letter('h'), &view), Outcome::Stay);
    assert_eq!(desk.press(Key::Back, &view), Outcome::Stay);
    assert_eq!(desk.press(Key::Enter, &view), Outcome::Stay, "the question is gone");
    desk.press(Key::Letter('h'), &view);
    let hold = Action::Hold {
        rig: RigId::new("asic-1").unwrap(),
        workload: Workload::Curtailed,
        operator: "ann".into(),
        accept_loss: true,
    };
    assert_eq!(desk.press(Key::Enter, &view), Outcome::Act(vec![hold]));
}

#[test]
fn marks_say_which_rigs_are_meant() {
    let view = sample::view();
    let mut desk = Desk::new("ann".into());
    desk.press(Key::Letter('a'), &view);
    desk.press(Key::Letter('r'), &view);
    let Outcome::Act(actions) = desk.press(Key::Letter('y'), &view) else {
        panic!("confirmed, but nothing was done");
    };
    assert_eq!(actions.len(), 2);
    assert!(!desk.is_marked(&view.rigs[0].id), "marks are used once");
}

#[test]
fn a_resize_does_not_answer_a_question() {
    let view = sample::view();
    let mut desk = Desk::new("ann".into());
    desk.press(Key::Letter('t'), &view);
    assert_eq!(desk.press(Key::Redraw, &view), Outcome::Stay);
    assert!(matches!(desk.press(Key::Enter, &view), Outcome::Act(_)));
}

#[test]
fn scrolling_stays_inside() {
    let view = sample::view();
    let mut desk = Desk::new("ann".into());
    for _ in 0..9 {
        desk.press(Key::Down, &view);
    }
    assert_eq!(desk.selected(), 1);
    for _ in 0..9 {
        desk.press(Key::Up, &view);
    }
    assert_eq!(desk.selected(), 0);
    assert_eq!(desk.press(Key::Letter('q'), &view), Outcome::Quit);
}
