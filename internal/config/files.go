package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"
)

// source is one configuration file.
type source struct {
	path string
	data []byte
	tree map[string]any // as package toml decodes it
}

// list is the files of the configuration in dir, in the order of their names,
// the main file first. They are returned even when there are mistakes.
func list(dir string) (files []string, mistake *Error) {
	if info, err := os.Stat(dir); err != nil {
		return nil, fileError(dir, err)
	} else if !info.IsDir() {
		return nil, fileError(dir, syscall.ENOTDIR)
	}
	if main := filepath.Join(dir, File); exists(main) {
		files = append(files, main)
	}
	more := filepath.Join(dir, "conf.d")
	if !exists(more) {
		return files, nil
	}
	entries, err := os.ReadDir(more) // sorts
	if err != nil {
		return files, fileError(more, err)
	}
	for _, e := range entries {
		// Editors and Ansible write hidden files before they rename them.
		if strings.HasSuffix(e.Name(), ".toml") && !strings.HasPrefix(e.Name(), ".") {
			files = append(files, filepath.Join(more, e.Name()))
		}
	}
	return files, nil
}

// exists reports whether there is anything of that name, be it a symbolic link
// to nowhere.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// fileError is the mistake that a file cannot be read.
func fileError(path string, err error) *Error {
	var inner *fs.PathError
	if errors.As(err, &inner) {
		err = inner.Err
	}
	message := err.Error()
	if target, linkErr := os.Readlink(path); linkErr == nil && errors.Is(err, fs.ErrNotExist) {
		message = fmt.Sprintf("is a symbolic link to %s, which does not exist", target)
	}
	return &Error{Position{File: path}, message}
}

// byteOrderMark may begin a file (systemd takes it, too, in its own files). It
// is what some Windows editors write.
const byteOrderMark = "\xef\xbb\xbf"

// readSource reads a file and parses it.
func readSource(path string) (source, *Error) {
	s := source{path: path}
	// A FIFO would be waited for; /dev/null is what masks a file.
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() && !isNull(info) {
		return s, &Error{Position{File: path}, "is not a regular file"}
	}
	if err == nil {
		s.data, err = os.ReadFile(path)
	}
	if err != nil {
		return s, fileError(path, err)
	}
	s.data = bytes.TrimPrefix(s.data, []byte(byteOrderMark))
	if line, ok := s.notUTF8(); ok {
		return s, &Error{Position{path, line}, "is not UTF-8 text"}
	}
	err = toml.Unmarshal(s.data, &s.tree)
	var syntax *toml.DecodeError
	switch {
	case err == nil:
		return s, nil
	case errors.As(err, &syntax):
		row, column := syntax.Position()
		return s, &Error{Position{path, row}, s.explain(row, column, strings.TrimPrefix(err.Error(), "toml: "))}
	}
	return s, &Error{Position{File: path}, printable(err.Error())}
}

func isNull(info fs.FileInfo) bool {
	null, err := os.Stat(os.DevNull)
	return err == nil && os.SameFile(info, null)
}

// notUTF8 is the first line that is not UTF-8, if there is one. TOML 1.0 asks
// for UTF-8.
func (s source) notUTF8() (line int, ok bool) {
	for text := range bytes.Lines(s.data) {
		line++
		if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
			return line, true
		}
	}
	return 0, false
}

// explain says what is wrong with the syntax at a line and column, both from 1
// on, the column in bytes. The message of package toml is made for those who
// know the grammar of TOML.
func (s source) explain(row, column int, message string) string {
	// Compiled here, since every program starts and hardly any gets here.
	// The beginning of a line KEY = VALUE.
	keyAndValue := regexp.MustCompile(`^\s*([^\s=#\[]+)\s*=\s*([^\s#]*)`)
	// How package toml names a character: by its first byte.
	codePoint := regexp.MustCompile(`:? U\+[0-9A-F]+.*`)
	lines := bytes.SplitAfter(s.data, []byte("\n"))
	if row > len(lines) || column < 1 {
		return printable(message)
	}
	line := lines[row-1]
	rest := line[min(column-1, len(line)):]
	if m := keyAndValue.FindSubmatch(line); m != nil && bytes.IndexByte(line, '=') < column {
		key, value := printable(string(m[1])), string(m[2])
		first, _ := utf8.DecodeRuneInString(value)
		switch {
		case value == "":
			return key + " has no value"
		case strings.ContainsRune("“”„‘’‚«»`´", first):
			return fmt.Sprintf(`the value of %s is not in plain quotation marks: write %[1]s = "..."`, key)
		case strings.Contains(message, "cannot have new lines"):
			return fmt.Sprintf("the value of %s lacks its closing quotation mark", key)
		case isBare(value):
			return fmt.Sprintf("the value of %s lacks its quotation marks: write %[1]s = %q", key, value)
		}
	}
	switch {
	case strings.Contains(message, "expected '='"):
		return `a line is KEY = VALUE, [TABLE] or a comment that begins with #`
	case !codePoint.MatchString(message):
		return printable(message)
	case len(bytes.TrimSpace(rest)) == 0:
		return "the line ends too early"
	case strings.Contains(message, "start of value"):
		return fmt.Sprintf("unexpected character %s: a string must be in quotation marks", firstRune(rest))
	}
	return codePoint.ReplaceAllString(message, "") + " " + firstRune(rest)
}

// isBare reports whether a value is text without quotation marks.
func isBare(value string) bool {
	if strings.ContainsAny(value, `"'{},`) {
		return false
	}
	// An array has no colon outside of quotation marks; an IPv6 address has.
	return strings.Contains(value, ":") || value[0] != '[' && strings.ContainsFunc(value, unicode.IsLetter)
}

func firstRune(text []byte) string {
	r, _ := utf8.DecodeRune(text)
	return strconv.QuoteRune(r)
}

// printable escapes what would break the line or the terminal.
func printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}
