package node

import (
	"context"
	"errors"

	choirv1 "choir.example/proto/choir/v1"
)

// unfitError is why the node does not do a task: for its owner, and in words that may leave the machine. Those say nothing of
// any row, and of the number of rows only that it is below what the job asks for.
type unfitError struct{ text, told string }

func (e *unfitError) Error() string { return e.text }

// untold is what leaves the machine in place of every other reason.
const untold = "it could not do its part; choir node status on its machine says why"

// maxTold bounds what waits to be told while no coordinator answers.
const maxTold = 16

// tell has the next poll say that the node does not do a task.
func (n *Node) tell(ctx context.Context, t *choirv1.Task, why error) {
	if ctx.Err() != nil {
		return // it stops, and does the task when it runs again
	}
	d := &choirv1.Decline{Key: t.Key, Reason: untold}
	if unfit := (*unfitError)(nil); errors.As(why, &unfit) {
		d.Reason = unfit.told
	}
	n.declined = append(n.declined[max(0, len(n.declined)-maxTold+1):], d)
}
