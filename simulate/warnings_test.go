package simulate

import (
	"bytes"
	"log/slog"
	"testing"
)

func TestLastWarning(t *testing.T) {
	var out bytes.Buffer
	last := &lastWarning{}
	log := slog.New(&warningHandler{next: slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelError}), last: last})
	log.With("node", "a").Warn("no room", "error", "disk is full")
	log.Info("all is well")
	if got, want := last.get(), "no room node=a error=disk is full"; got != want {
		t.Errorf("last warning %q, want %q", got, want)
	}
	if out.Len() > 0 {
		t.Errorf("a warning reached a log of errors: %s", &out)
	}
	log.Error("broken")
	if last.get() != "broken" || !bytes.Contains(out.Bytes(), []byte("broken")) {
		t.Errorf("last %q, log %q", last.get(), &out)
	}
}
