package client

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Answer is what a gateway has answered, as it came: nothing, OK in a line, or
// ERR: and a code in a line, but whatever else if it is no gateway.
type Answer string

// ok is the answer of a gateway that says when it accepts.
const ok = "OK\n"

// Accepted reports whether the gateway has accepted the key. By default it does
// so without a word.
func (a Answer) Accepted() bool { return a == "" || a == ok }

// Printable is the answer for a terminal, OK for silence. All that is not text in
// lines is escaped: what a gateway sends must not get to the terminal's controls.
func (a Answer) Printable() string {
	if a.Accepted() {
		return ok
	}
	var b strings.Builder
	for line := range strings.Lines(string(a)) {
		text, hasNewline := strings.CutSuffix(line, "\n")
		if strings.ContainsFunc(text, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }) {
			text = strconv.Quote(text)
		}
		b.WriteString(text)
		if hasNewline {
			b.WriteByte('\n')
		}
	}
	return b.String()
}
