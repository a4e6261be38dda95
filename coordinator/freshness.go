package coordinator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"choir.example/coordinator/state"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// freshness is how sure a coordinator must be of what it knows before it answers a call.
type freshness int

const (
	// asIs: the answer does not depend on being up to date, or the handler sees to it.
	asIs freshness = iota + 1
	// unlessBehind: turned away once it is known that this coordinator does not get any further. Callers without a
	// certificate make no coordinator ask another; where there is no leader, their entry waits for one.
	unlessBehind
	// unlessDoubted: turned away once it is known that this coordinator is behind or hears of no leader. Such a call costs
	// no message, and may be answered with what was so a few seconds ago.
	unlessDoubted
	// confirmed: a leader confirms, after the call has come, that this coordinator knows all that anybody was told before.
	confirmed
	// command: the same, but it waits for a leader as long as the entry would that is to follow.
	command
)

// freshnessOf is the one table of how fresh the answer to each RPC is; roles says who may call it.
var freshnessOf = map[string]freshness{
	choirv1.Enrolment_Enrol_FullMethodName: unlessBehind,
	choirv1.Enrolment_Renew_FullMethodName: unlessDoubted, // it would not know who was revoked
	choirv1.Enrolment_Join_FullMethodName:  unlessBehind,

	choirv1.Enrolment_Membership_FullMethodName: asIs, // it tells what is so for good, or nothing

	choirv1.Nodes_Poll_FullMethodName:       unlessDoubted,
	choirv1.Nodes_Upload_FullMethodName:     unlessDoubted,
	choirv1.Nodes_GetOutcome_FullMethodName: unlessDoubted,
	choirv1.Nodes_GetBlob_FullMethodName:    asIs, // its id says what it holds
	choirv1.Nodes_GetRelease_FullMethodName: asIs, // so does its number

	choirv1.Operators_CreateToken_FullMethodName:        command,
	choirv1.Operators_SubmitJob_FullMethodName:          command,
	choirv1.Operators_GetJob_FullMethodName:             confirmed,
	choirv1.Operators_WatchJob_FullMethodName:           confirmed,
	choirv1.Operators_GetRelease_FullMethodName:         confirmed,
	choirv1.Operators_GetBlob_FullMethodName:            confirmed,
	choirv1.Operators_GetStatus_FullMethodName:          asIs, // its handler confirms, and says where nobody does
	choirv1.Operators_GetBundle_FullMethodName:          confirmed,
	choirv1.Operators_ListTokens_FullMethodName:         confirmed,
	choirv1.Operators_RevokeToken_FullMethodName:        command,
	choirv1.Operators_ListNodes_FullMethodName:          confirmed,
	choirv1.Operators_RevokeNode_FullMethodName:         command,
	choirv1.Operators_RevokePerson_FullMethodName:       command,
	choirv1.Operators_ListJoins_FullMethodName:          confirmed,
	choirv1.Operators_ApproveCoordinator_FullMethodName: command,
	choirv1.Operators_RemoveCoordinator_FullMethodName:  command,
	choirv1.Operators_ListJobs_FullMethodName:           confirmed,
	choirv1.Operators_ControlJob_FullMethodName:         command,
	choirv1.Operators_ListReleases_FullMethodName:       confirmed,
	choirv1.Operators_ListCertificates_FullMethodName:   confirmed,
	choirv1.Operators_RotateRoot_FullMethodName:         command,
	choirv1.Operators_RenewCoordinator_FullMethodName:   command,
	choirv1.Operators_AdmitOfficer_FullMethodName:       command,

	choirv1.Peers_Propose_FullMethodName:   asIs,
	choirv1.Peers_PutBlob_FullMethodName:   asIs,
	choirv1.Peers_FetchBlob_FullMethodName: asIs,
	choirv1.Peers_Presence_FullMethodName:  asIs,
	choirv1.Peers_SignHead_FullMethodName:  asIs,
	choirv1.Peers_Committed_FullMethodName: asIs,
}

const (
	confirmWithin  = 3 * time.Second        // for a leader to confirm, an election included, and to catch up with it
	confirmTry     = time.Second            // for one leader to answer
	confirmEvery   = time.Second            // how often a coordinator looks by itself whether it is behind
	reconsiderWait = 100 * time.Millisecond // until it looks again when it is
)

// errNoLeader is a doubt: nobody confirms what this coordinator knows.
var errNoLeader = errors.New("no leader confirms what this coordinator knows")

// current turns a call away that this coordinator could only answer with what may not be so any more. Callers go on to
// the next coordinator.
func (c *Coordinator) current(ctx context.Context, method string) error {
	var doubt error
	switch want := freshnessOf[method]; want {
	case asIs:
	case unlessBehind, unlessDoubted:
		if _, doubt = c.standing.look(); want == unlessBehind && errors.Is(doubt, errNoLeader) {
			doubt = nil
		}
	case command:
		doubt = c.await(ctx)
	default:
		doubt = c.confirm(ctx)
	}
	if doubt != nil {
		return status.Errorf(codes.Unavailable, "%v", doubt)
	}
	return nil
}

// confirm returns nil once this coordinator has applied all that was committed before the call. It returns at once where
// there is doubt already.
func (c *Coordinator) confirm(ctx context.Context) error {
	if _, doubt := c.standing.look(); doubt != nil {
		return doubt
	}
	ctx, cancel := context.WithTimeout(ctx, confirmWithin)
	defer cancel()
	return c.catchUp(ctx)
}

// await is confirm, with patience for an election.
func (c *Coordinator) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		doubt := c.confirm(ctx)
		if !errors.Is(doubt, errNoLeader) || ctx.Err() != nil {
			return doubt
		}
		pause(ctx, reconsiderWait)
	}
}

// catchUp learns from the leader how far the log is committed and waits until that much is applied here.
func (c *Coordinator) catchUp(ctx context.Context) error {
	index, err := c.committed(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoLeader, err)
	}
	_, err = c.replica.Wait(ctx, func(s *state.State) bool { return s.Index >= index })
	if err == nil {
		return nil
	}
	behind := fmt.Errorf("coordinator %s is behind, at entry %d of %d", c.cfg.Name, c.replica.State().Index, index)
	if why := c.replica.store.trouble.Load(); why != nil {
		return fmt.Errorf("%w: its disk takes no more: %w", behind, *why)
	}
	return behind
}

// committed asks whoever leads, through changes of leader, until ctx ends.
func (c *Coordinator) committed(ctx context.Context) (index uint64, err error) {
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		if index, err = c.askCommitted(ctx); err == nil {
			return index, nil
		}
		if pause(ctx, wait); ctx.Err() != nil {
			return 0, err
		}
	}
}

func (c *Coordinator) askCommitted(ctx context.Context) (uint64, error) {
	index, err := c.replica.Committed()
	if !errors.Is(err, errNotLeader) {
		return index, err
	}
	name, address := c.replica.Leader()
	if name == "" || name == c.cfg.Name {
		return 0, errors.New("a majority of the coordinators must be running and reach each other")
	}
	peer, err := c.peers.client(name, address)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, confirmTry)
	defer cancel()
	reply, err := peer.Committed(ctx, &choirv1.CommittedRequest{})
	if err != nil {
		return 0, fmt.Errorf("ask %s: %w", name, err)
	}
	return reply.Index, nil
}

// keepCurrent looks again and again whether this coordinator is behind, so that those who only wait for news here, nodes
// above all, are sent elsewhere. It costs one message a second, however many wait.
func (c *Coordinator) keepCurrent(ctx context.Context) {
	for ctx.Err() == nil {
		within, cancel := context.WithTimeout(ctx, confirmWithin)
		doubt := c.catchUp(within)
		cancel()
		if err := c.replica.store.writable(); doubt == nil && err != nil {
			doubt = fmt.Errorf("the disk of coordinator %s takes no more: %w", c.cfg.Name, err)
		}
		if ctx.Err() != nil {
			return
		}
		was := c.standing.turn(doubt)
		switch {
		case doubt == nil && was != nil:
			c.deps.Log.Info("this coordinator is up to date again")
		case doubt != nil && was == nil:
			c.deps.Log.Warn("this coordinator sends nodes and operators to others", "reason", doubt)
		}
		if doubt != nil {
			pause(ctx, reconsiderWait)
		} else {
			pause(ctx, confirmEvery)
		}
	}
}

// standing is whether this coordinator is up to date, as far as it knows.
type standing struct {
	mu     sync.Mutex // guards the fields below
	looked bool
	doubt  error
	turned chan struct{} // closed when doubt comes or goes
}

func newStanding() *standing { return &standing{turned: make(chan struct{})} }

// look is why this coordinator may be behind, nil if it is not known to be; turned closes when that changes.
func (s *standing) look() (turned <-chan struct{}, doubt error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.turned, s.doubt
}

// ready is look for those who must not come before it is known how this coordinator stands.
func (s *standing) ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.looked {
		return errors.New("it is not known yet whether this coordinator is up to date")
	}
	return s.doubt
}

// turn notes the present doubt and returns the one before.
func (s *standing) turn(doubt error) (was error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, s.doubt, s.looked = s.doubt, doubt, true
	if (was == nil) != (doubt == nil) {
		close(s.turned)
		s.turned = make(chan struct{})
	}
	return was
}
