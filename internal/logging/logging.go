// Package logging writes structured entries to the journal or, where there is
// none, as text to standard error.
package logging

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

// Field is a field of an entry: a journal field WGKEX_NAME=value
// (systemd.journal-fields(7)), or name=value in text.
type Field struct {
	Name  string // upper case, without WGKEX_
	Value string
}

// Log writes one entry. Fields without a value are left out.
func Log(priority journal.Priority, message string, fields ...Field) {
	// Of its own accord the journal takes it from standard output only.
	vars := map[string]string{"SYSLOG_IDENTIFIER": filepath.Base(os.Args[0])}
	var attrs []slog.Attr
	for _, f := range fields {
		if f.Value != "" {
			vars["WGKEX_"+f.Name] = f.Value
			attrs = append(attrs, slog.String(strings.ToLower(f.Name), f.Value))
		}
	}
	if journal.Send(message, priority, vars) == nil {
		return
	}
	slog.New(slog.NewTextHandler(os.Stderr, nil)).LogAttrs(context.Background(), level(priority), message, attrs...)
}

func level(p journal.Priority) slog.Level {
	switch {
	case p <= journal.PriErr:
		return slog.LevelError
	case p == journal.PriWarning:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}
