package main

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
)

// meter shows how far something is that takes more than two seconds: a bar on a terminal, a plain line every two
// seconds elsewhere. What is done sooner shows nothing.
type meter struct {
	w     io.Writer
	what  string
	begun time.Time
	said  time.Time
	bar   *progressbar.ProgressBar
}

const (
	meterAfter  = 2 * time.Second
	meterRedraw = 100 * time.Millisecond
)

func newMeter(w io.Writer, what string) *meter {
	now := time.Now()
	return &meter{w: w, what: what, begun: now, said: now}
}

// due reports whether it is time to say something.
func (m *meter) due() bool {
	now := time.Now()
	if onTerminal(m.w) {
		return now.Sub(m.begun) > meterAfter
	}
	if now.Sub(m.said) < meterAfter {
		return false
	}
	m.said = now
	return true
}

// bytes shows done of total bytes; total 0 is not known.
func (m *meter) bytes(done, total uint64) {
	switch {
	case !m.due():
	case onTerminal(m.w):
		m.draw(done, total, progressbar.OptionShowBytes(true))
	case total > 0:
		fmt.Fprintf(m.w, "%s: %s of %s\n", m.what, bytesOf(done), bytesOf(total))
	default:
		fmt.Fprintf(m.w, "%s: %s\n", m.what, bytesOf(done))
	}
}

// count shows done of total things.
func (m *meter) count(done, total int64, things string) {
	switch {
	case !m.due():
	case onTerminal(m.w):
		m.draw(uint64(done), uint64(total), progressbar.OptionShowCount())
	default:
		fmt.Fprintf(m.w, "%s: %d of %d %s\n", m.what, done, total, things)
	}
}

// rounds shows done of total rounds, what the last one came to, and how long the others will take if all go on as the
// rounds from first did.
func (m *meter) rounds(first, done, total int, words string) {
	if !m.due() {
		return
	}
	now := time.Now()
	each := now.Sub(m.begun) / time.Duration(max(done-first+1, 1))
	words += leftText(each * time.Duration(total-done))
	if !onTerminal(m.w) {
		fmt.Fprintf(m.w, "%s: round %d of %d, %s\n", m.what, done, total, words)
		return
	}
	if m.bar != nil && now.Sub(m.said) < meterRedraw {
		return // rounds may be faster than a terminal
	}
	m.said = now
	m.draw(uint64(done), uint64(total), progressbar.OptionShowCount(), progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(false))
	m.bar.Describe(m.what + ": " + words)
}

// leftText says how long the rest will take, nothing if there is none.
func leftText(left time.Duration) string {
	switch {
	case left <= 0:
		return ""
	case left < time.Second:
		return "; under 1s left"
	}
	return fmt.Sprintf("; %v left", left.Round(time.Second))
}

func (m *meter) draw(done, total uint64, options ...progressbar.Option) {
	if m.bar == nil {
		most := int64(total)
		if most == 0 {
			most = -1
		}
		options = append(options, progressbar.OptionSetWriter(m.w), progressbar.OptionClearOnFinish(), progressbar.OptionSetWidth(24),
			progressbar.OptionSetDescription(m.what))
		m.bar = progressbar.NewOptions64(most, options...)
	}
	_ = m.bar.Set64(int64(done)) // a bar that cannot be drawn is no reason to stop
}

func (m *meter) finish() {
	if m.bar != nil {
		_ = m.bar.Finish()
	}
}
