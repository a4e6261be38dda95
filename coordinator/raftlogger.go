package coordinator

import (
	"context"
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// raftLogger carries raft's own log lines, which describe each heartbeat, into ours one level lower.
func raftLogger(log *slog.Logger) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name: "raft", Level: hclog.Info, Output: &lineWriter{log, "raft"}, DisableTime: true,
	})
}

// lineWriter writes lines of another library to slog at debug level.
type lineWriter struct {
	log  *slog.Logger
	from string
}

func (w *lineWriter) Write(b []byte) (int, error) {
	n := len(b)
	for n > 0 && b[n-1] == '\n' {
		n--
	}
	w.log.Log(context.Background(), slog.LevelDebug, string(b[:n]), "from", w.from)
	return len(b), nil
}

var _ io.Writer = (*lineWriter)(nil)
