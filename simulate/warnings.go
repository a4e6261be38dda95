package simulate

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
)

// lastWarning remembers the latest warning that was logged.
type lastWarning struct {
	mu   sync.Mutex // guards text
	text string
}

func (w *lastWarning) get() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text
}

// warningHandler hands every record on, and keeps warnings and errors in last.
type warningHandler struct {
	next  slog.Handler
	attrs []slog.Attr
	last  *lastWarning
}

func (h *warningHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn || h.next.Enabled(ctx, l)
}

func (h *warningHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		words := []string{r.Message}
		add := func(a slog.Attr) bool {
			words = append(words, fmt.Sprintf("%s=%v", a.Key, a.Value))
			return true
		}
		for _, a := range h.attrs {
			add(a)
		}
		r.Attrs(add)
		h.last.mu.Lock()
		h.last.text = strings.Join(words, " ")
		h.last.mu.Unlock()
	}
	if !h.next.Enabled(ctx, r.Level) {
		return nil
	}
	return h.next.Handle(ctx, r)
}

func (h *warningHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &warningHandler{h.next.WithAttrs(attrs), append(h.attrs[:len(h.attrs):len(h.attrs)], attrs...), h.last}
}

func (h *warningHandler) WithGroup(name string) slog.Handler {
	return &warningHandler{h.next.WithGroup(name), h.attrs, h.last}
}
