package coordinator

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode"

	"choir.example/coordinator/state"
	choirv1 "choir.example/proto/choir/v1"
)

const (
	maxDecline  = 200 // bytes of a node's reason that are kept
	declineTold = 64  // declines that one poll, or one answer to a peer, may carry
)

// declines remembers what nodes told this coordinator of tasks they did not do: the latest of each job and node. The
// reasons are for people, in the one with which a round is abandoned. Who declined is not waited for: a round that has
// enough updates is cut when nobody is left who might send another.
type declines struct {
	mu   sync.Mutex // guards the fields below
	jobs map[string]map[string]decline
	news chan struct{} // closed when there is another
}

func newDeclines() declines {
	return declines{jobs: map[string]map[string]decline{}, news: make(chan struct{})}
}

type decline struct {
	attempt
	reason string
}

// note keeps what a node said, as far as it is about jobs that may go on.
func (d *declines) note(s *state.State, node string, told []*choirv1.Decline) {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.jobs, func(job string, _ map[string]decline) bool { return s.Jobs[job] == nil || s.Jobs[job].Ended() })
	for _, t := range told[:min(len(told), declineTold)] {
		key := attemptOf(t.Key)
		if j := s.Jobs[key.job]; j == nil || j.Ended() {
			continue
		}
		if d.jobs[key.job] == nil {
			d.jobs[key.job] = map[string]decline{}
		}
		d.jobs[key.job][node] = decline{key, legible(t.Reason)}
	}
	close(d.news)
	d.news = make(chan struct{})
}

// changed is closed when somebody declines from now on.
func (d *declines) changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.news
}

// who lists the nodes that declined an attempt.
func (d *declines) who(key attempt) (nodes []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for node, told := range d.jobs[key.job] {
		if told.attempt == key {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// of lists what nodes said of an attempt, by name.
func (d *declines) of(key attempt) (out []*choirv1.NodeDecline) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, node := range slices.Sorted(maps.Keys(d.jobs[key.job])) {
		if told := d.jobs[key.job][node]; told.attempt == key && len(out) < declineTold {
			out = append(out, &choirv1.NodeDecline{Node: node, Reason: told.reason})
		}
	}
	return out
}

// legible is a text of somebody else's, cut, in one line that can be printed and recorded.
func legible(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, text[:min(len(text), maxDecline)])
	return strings.ToValidUTF8(text, "")
}

// declined tells why nodes did not do their part in an attempt, as far as they told one of the coordinators: the reasons
// that most gave come first. Empty if none did.
func (c *Coordinator) declined(ctx context.Context, s *state.State, key *choirv1.RoundKey) string {
	all := c.declines.of(attemptOf(key))
	for _, reply := range c.askPeersFor(ctx, s, &choirv1.PresenceRequest{Declined: key}) {
		all = append(all, reply.Declined...)
	}
	nodes := map[string][]string{} // by reason
	for _, d := range all {
		reason := legible(d.Reason)
		if !slices.Contains(nodes[reason], d.Node) {
			nodes[reason] = append(nodes[reason], d.Node)
		}
	}
	reasons := slices.SortedFunc(maps.Keys(nodes), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(nodes[b]), len(nodes[a])), cmp.Compare(a, b))
	})
	var text strings.Builder
	for _, reason := range reasons[:min(len(reasons), 3)] {
		names := nodes[reason]
		slices.Sort(names)
		more := ""
		if len(names) > 3 {
			names, more = names[:3], fmt.Sprintf(" and %d more", len(nodes[reason])-3)
		}
		fmt.Fprintf(&text, "; %s%s declined: %s", strings.Join(names, ", "), more, reason)
	}
	return text.String()
}

// awaited is how many nodes may still send an update of an open attempt: those invited that have neither sent one, nor
// declined as this coordinator or those in elsewhere have heard, nor been revoked.
func (c *Coordinator) awaited(s *state.State, r *state.Round, key attempt, elsewhere map[string]bool) (n int) {
	declined := maps.Clone(elsewhere)
	for _, node := range c.declines.who(key) {
		declined[node] = true
	}
	for _, node := range r.Cohort {
		if _, counted := r.Accepted[node]; !counted && !declined[node] && !s.Nodes[node].Revoked {
			n++
		}
	}
	return n
}

// declinedElsewhere asks the other coordinators who declined an attempt.
func (c *Coordinator) declinedElsewhere(ctx context.Context, s *state.State, key *choirv1.RoundKey) map[string]bool {
	nodes := map[string]bool{}
	for _, reply := range c.askPeersFor(ctx, s, &choirv1.PresenceRequest{Declined: key}) {
		for _, node := range reply.Declining {
			nodes[node] = true
		}
	}
	return nodes
}
