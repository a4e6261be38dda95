package simulate

import (
	"context"
	"fmt"

	"choir.example/fedavg"
)

// called is who is called for a round.
type called struct {
	number int
	there  map[string]bool // by name
	parts  map[string]invitee
	liars  *conspiracy // nil: nobody lies

	want   []string         // whose updates will count, by name
	known  map[string]bool  // of those: has computed one, or has sent it before a break
	failed map[string]error // of those: could not compute one
}

// verdict is why the round cannot be, nil as long as that is open: the first failure by name, once all before it have an update.
// What is told is the same, whoever fails first.
func (c *called) verdict() error {
	if len(c.failed) == 0 {
		return nil
	}
	for _, name := range c.want {
		if err := c.failed[name]; err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if !c.known[name] {
			return nil
		}
	}
	return nil
}

// note takes in that a node has an update in a round, or why it has none.
func (l *lab) note(c *called, name string, err error) {
	l.mu.Lock()
	if err == nil {
		c.known[name] = true
	} else if !c.known[name] {
		c.failed[name] = err
	}
	verdict := c.verdict()
	l.mu.Unlock()
	if verdict != nil {
		l.failed(c.number, verdict)
	}
}

// stay waits for the end of the run.
func stay(ctx context.Context) (*fedavg.Update, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// lying is a liar's lie, nil for who does not lie, whose failure is the round's.
func (l *lab) lying(c *called, lie func(ctx context.Context) (*fedavg.Update, error)) func(ctx context.Context) (*fedavg.Update, error) {
	if lie == nil {
		return nil
	}
	return func(ctx context.Context) (*fedavg.Update, error) {
		u, err := lie(ctx)
		if err == nil || ctx.Err() != nil {
			return u, err
		}
		l.failed(c.number, err)
		return stay(ctx)
	}
}

// counts notes nodes whose updates count in a round, unless a later one is open.
func (l *lab) counts(round int, nodes []string) {
	l.mu.Lock()
	for later := range l.rounds {
		if later > round {
			l.mu.Unlock()
			return
		}
	}
	c := l.round(round)
	l.mu.Unlock()
	for _, name := range nodes {
		l.note(c, name, nil)
	}
}
