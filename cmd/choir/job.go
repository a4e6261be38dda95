package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"choir.example/coordinator/state"
	"choir.example/model"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// jobCommand is `choir job`.
type jobCommand struct {
	Submit   jobSubmit `cmd:"" help:"Start a job from a file."`
	List     jobList   `cmd:"" help:"List jobs."`
	Show     jobShow   `cmd:"" help:"Show a job and its rounds."`
	Watch    jobWatch  `cmd:"" help:"Follow a job until it has ended."`
	Model    jobModel  `cmd:"" help:"Fetch the model that a round of a job made."`
	Stop     jobStop   `cmd:"" help:"End a job at a clean point: after the round under way."`
	Pause    jobPause  `cmd:"" help:"Let a job rest after the round under way."`
	Resume   jobResume `cmd:"" help:"Let a paused job go on."`
	Continue jobMore   `cmd:"" help:"Give an ended job more rounds."`
}

// jobSubmit is `choir job submit`.
type jobSubmit struct {
	contextFlag
	outputFlag
	jobFiles
	File string `arg:"" help:"The job's file, YAML, or an experiment's." type:"path"`
}

// jobFiles are files in place of those that a job's file names.
type jobFiles struct {
	Schema string `help:"What the columns of the nodes' data mean, in place of the file's schema." placeholder:"FILE" type:"path"`
	Public string `help:"Rows that coordinators may see, for feddf and fltrust, in place of the file's public." placeholder:"FILE" type:"path"`
}

// Help is what --help explains.
func (jobSubmit) Help() string {
	return `deploy/local/job.yaml is a commented job file. Files that it names lie relative to it.

An experiment's file, which choir simulate run tries out, is a job's, too: its rounds, its first seed, cohort.nodes as goal,
fleet.least as minimum_cohort, fleet.over_selection, and the sections architecture to privacy as they are. Data and
evaluation are the nodes' own; --schema says what their columns mean. Where the label has several classes no release is made.

Example: choir job submit job.yaml`
}

// Run submits a job.
func (c *jobSubmit) Run(ctx context.Context, t *terminal) error {
	req, err := readJob(c.File, c.jobFiles, t.err)
	if err != nil {
		return err
	}
	f, err := c.open(t)
	if err != nil {
		return err
	}
	reply, err := f.operators().SubmitJob(ctx, req)
	if err != nil {
		return jobError(req.Spec.Name, err)
	}
	if c.json() {
		return printJSON(t.out, map[string]any{"name": reply.Name})
	}
	_, err = fmt.Fprintf(t.out, "job %s is submitted: %d rounds; follow it with choir job watch %s\n", reply.Name, req.Spec.Rounds, reply.Name)
	return err
}

// jobError adds the cure to what a coordinator says about a job.
func jobError(name string, err error) error {
	switch status.Code(err) {
	case codes.NotFound:
		return &hinted{said(err), "choir job list shows the jobs"}
	case codes.AlreadyExists:
		return &hinted{said(err), "take another name, or give the job that ended more rounds: choir job continue " + name + " --rounds N"}
	}
	return said(err)
}

// jobView is a job for programs; the fields up to rounds are a contract.
type jobView struct {
	Name    string      `json:"name"`
	State   string      `json:"state"`
	Reason  string      `json:"reason,omitempty"`
	Round   uint64      `json:"round"`
	Release uint64      `json:"release,omitempty"`
	Rounds  []roundView `json:"rounds"`
}

// roundView is one attempt at a round.
type roundView struct {
	Round    uint64             `json:"round"`
	Attempt  uint32             `json:"attempt"`
	Kind     string             `json:"kind"`
	State    string             `json:"state"`
	Reason   string             `json:"reason,omitempty"`
	Invited  uint32             `json:"invited"`
	Accepted uint32             `json:"accepted"`
	Rejected uint32             `json:"rejected"`
	Metrics  map[string]float64 `json:"metrics"` // of the model the round started from, over the nodes' validation parts
}

func viewJob(s *choirv1.JobStatus) jobView {
	v := jobView{Name: s.Name, State: s.State, Reason: s.Reason, Round: s.Round, Release: s.Release, Rounds: []roundView{}}
	for _, r := range s.Rounds {
		v.Rounds = append(v.Rounds, roundView{
			Round: r.Round, Attempt: r.Attempt, Kind: roundKind(r.Kind), State: r.State, Reason: r.Reason,
			Invited: r.Invited, Accepted: r.Accepted, Rejected: r.Refused, Metrics: metrics(r.Evaluation),
		})
	}
	return v
}

func roundKind(k choirv1.RoundKind) string {
	return map[choirv1.RoundKind]string{
		choirv1.RoundKind_ROUND_KIND_STATISTICS: "statistics", choirv1.RoundKind_ROUND_KIND_TRAIN: "train", choirv1.RoundKind_ROUND_KIND_EVALUATE: "evaluate",
	}[k]
}

// metrics are an evaluation's figures, empty where nothing was evaluated.
func metrics(e *choirv1.EvaluationSum) map[string]float64 {
	if e.GetExamples() == 0 {
		return map[string]float64{}
	}
	m := model.Evaluation{Examples: e.Examples, Correct: e.Correct, Loss: e.Loss}
	all := map[string]float64{
		"examples": float64(e.Examples), "nodes": float64(e.Nodes), "accuracy": rounded(m.Accuracy()), "loss": rounded(m.MeanLoss()),
	}
	if e.AucMillionths > 0 { // of several classes there is none
		all["auc"] = float64(e.AucMillionths) / 1e6
	}
	return all
}

// before is how good the model was from which a round started; its name is empty where nothing was evaluated.
func (r *roundView) before() (name string, value float64) {
	if a, ok := r.Metrics["auc"]; ok {
		return "AUC", a
	}
	if a, ok := r.Metrics["accuracy"]; ok {
		return "accuracy", a
	}
	return "", 0
}

func rounded(x float64) float64 { return math.Round(x*1e6) / 1e6 }

// jobList is `choir job list`.
type jobList struct {
	contextFlag
	outputFlag
}

// Help is what --help explains.
func (jobList) Help() string { return "Example: choir job list" }

// Run lists jobs.
func (c *jobList) Run(ctx context.Context, t *terminal) error {
	f, err := c.open(t)
	if err != nil {
		return err
	}
	reply, err := f.operators().ListJobs(ctx, &choirv1.ListJobsRequest{})
	if err != nil {
		return said(err)
	}
	type row struct {
		Name    string `json:"name"`
		State   string `json:"state"`
		Reason  string `json:"reason,omitempty"`
		Round   uint64 `json:"round"`
		Release uint64 `json:"release"`
	}
	rows := []row{}
	tab := newTable("JOB", "STATE", "ROUND", "RELEASE", "REASON")
	for _, j := range reply.Jobs {
		rows = append(rows, row{j.Name, j.State, j.Reason, j.Round, j.Release})
		tab.add(j.Name, j.State, j.Round, j.Release, j.Reason)
	}
	if c.json() {
		return printJSON(t.out, map[string]any{"jobs": rows})
	}
	return tab.print(t.out, "no jobs")
}

// jobShow is `choir job show`.
type jobShow struct {
	contextFlag
	outputFlag
	Name string `arg:"" help:"The job's name."`
}

// Help is what --help explains.
func (jobShow) Help() string { return "Example: choir job show purchase -o json" }

// Run shows a job.
func (c *jobShow) Run(ctx context.Context, t *terminal) error {
	f, err := c.open(t)
	if err != nil {
		return err
	}
	s, err := f.operators().GetJob(ctx, &choirv1.GetJobRequest{Name: c.Name})
	if err != nil {
		return jobError(c.Name, err)
	}
	v := viewJob(s)
	if c.json() {
		return printJSON(t.out, v)
	}
	fmt.Fprintf(t.out, "%s: %s, last trained in round %d%s%s\n", v.Name, v.State, v.Round, because(v.Reason), releaseText(v.Release))
	tab := newTable("ROUND", "ATTEMPT", "KIND", "STATE", "INVITED", "ACCEPTED", "REJECTED", "BEFORE", "REASON")
	for _, r := range v.Rounds {
		before := ""
		if name, value := r.before(); name != "" {
			before = fmt.Sprintf("%s %.4f", name, value)
		}
		tab.add(r.Round, r.Attempt, r.Kind, r.State, r.Invited, r.Accepted, r.Rejected, before, r.Reason)
	}
	return tab.print(t.out, "no rounds yet")
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + reason + ")"
}

func releaseText(version uint64) string {
	if version == 0 {
		return ""
	}
	return fmt.Sprintf(", published as release %d", version)
}

// jobWatch is `choir job watch`.
type jobWatch struct {
	contextFlag
	outputFlag
	Name string `arg:"" help:"The job's name."`
}

// Help is what --help explains.
func (jobWatch) Help() string {
	return `Prints where the job stands, and what it waits for, and a line for each round that closes or is abandoned; with -o json the
whole job, one object a line, whenever it changes. Goes on at another coordinator when one dies. Exits 0 when the job has
finished, 1 when it failed or was stopped.

Example: choir job watch purchase`
}

// Run follows a job.
func (c *jobWatch) Run(ctx context.Context, t *terminal) error {
	f, err := c.open(t)
	if err != nil {
		return err
	}
	w := watched{out: t.out, seen: map[[2]uint64]bool{}}
	last, err := f.follow(ctx, c.Name, func(s *choirv1.JobStatus) error {
		if c.json() {
			return printJSON(t.out, viewJob(s))
		}
		return w.print(viewJob(s))
	})
	if err != nil {
		return err
	}
	if !c.json() {
		fmt.Fprintf(t.out, "%s: %s after round %d%s%s\n", last.Name, last.State, last.Round, because(last.Reason), releaseText(last.Release))
	}
	if last.State != "finished" {
		return &hinted{fmt.Errorf("job %s: %s%s", last.Name, last.State, because(last.Reason)), "choir job show " + last.Name + " tells its rounds"}
	}
	return nil
}

// watched is what a watcher of a job has read.
type watched struct {
	out   io.Writer
	stood string // where the job stood
	seen  map[[2]uint64]bool
}

// print says where the job stands, with the reason, and which attempts have ended, as far as that is news.
func (w *watched) print(v jobView) error {
	for _, r := range v.Rounds {
		key := [2]uint64{r.Round, uint64(r.Attempt)}
		if w.seen[key] || r.State != "closed" && r.State != "abandoned" {
			continue
		}
		w.seen[key] = true
		line := fmt.Sprintf("%s: round %d (%s) %s: %d of %d updates", v.Name, r.Round, r.Kind, r.State, r.Accepted, r.Invited)
		if r.Rejected > 0 {
			line += fmt.Sprintf(", %d rejected", r.Rejected)
		}
		if name, value := r.before(); name != "" {
			line += fmt.Sprintf(", %s before %.4f", name, value)
		}
		if _, err := fmt.Fprintln(w.out, line+because(r.Reason)); err != nil {
			return err
		}
	}
	stands := v.State + because(v.Reason)
	if stands == w.stood || slices.Contains([]string{"finished", "failed", "stopped"}, v.State) { // an end is said by who watches
		return nil
	}
	w.stood = stands
	_, err := fmt.Fprintf(w.out, "%s: %s\n", v.Name, stands)
	return err
}

// follow calls each with every status of a job until it has ended, through deaths of coordinators. It gives up when
// nobody answers for a minute.
func (f *federation) follow(ctx context.Context, name string, each func(*choirv1.JobStatus) error) (*choirv1.JobStatus, error) {
	var last *choirv1.JobStatus
	heard := time.Now()
	for {
		stream, err := f.operators().WatchJob(ctx, &choirv1.GetJobRequest{Name: name})
		for err == nil {
			var s *choirv1.JobStatus
			if s, err = stream.Recv(); err == nil {
				last, heard = s, time.Now()
				if err := each(s); err != nil {
					return nil, err
				}
			}
		}
		switch {
		case ctx.Err() != nil:
			return nil, errors.New("interrupted; the job goes on")
		case errors.Is(err, io.EOF) && last != nil:
			return last, nil
		case status.Code(err) != codes.Unavailable || last == nil || time.Since(heard) > time.Minute:
			return nil, jobError(name, err)
		}
		f.Addresses = append(f.Addresses[1:], f.Addresses[0]) // another one first
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// jobName is the argument of commands that control a job.
type jobName struct {
	contextFlag
	outputFlag
	Name string `arg:"" help:"The job's name."`
}

// control asks for the action and says what is to come.
func (c jobName) control(ctx context.Context, t *terminal, action string, rounds uint64, says string) error {
	f, err := c.open(t)
	if err != nil {
		return err
	}
	reply, err := f.operators().ControlJob(ctx, &choirv1.ControlJobRequest{Name: c.Name, Action: action, Rounds: rounds})
	if err != nil {
		return jobError(c.Name, err)
	}
	if action == state.ActionResume || action == state.ActionContinue {
		says += fmt.Sprintf(" to round %d", reply.Rounds)
	}
	return c.tell(t, t.err, map[string]any{"name": c.Name, "action": action, "last_round": reply.Rounds}, "job %s %s", c.Name, says)
}

type jobStop struct{ jobName }

// Help is what --help explains.
func (jobStop) Help() string { return "Example: choir job stop purchase" }

// Run stops the job.
func (c *jobStop) Run(ctx context.Context, t *terminal) error {
	return c.control(ctx, t, state.ActionStop, 0, "stops after the round under way")
}

type jobPause struct{ jobName }

// Help is what --help explains.
func (jobPause) Help() string { return "Example: choir job pause purchase" }

// Run pauses the job.
func (c *jobPause) Run(ctx context.Context, t *terminal) error {
	return c.control(ctx, t, state.ActionPause, 0, "rests after the round under way")
}

type jobResume struct{ jobName }

// Help is what --help explains.
func (jobResume) Help() string { return "Example: choir job resume purchase" }

// Run resumes the job.
func (c *jobResume) Run(ctx context.Context, t *terminal) error {
	return c.control(ctx, t, state.ActionResume, 0, "goes on")
}

type jobMore struct {
	jobName
	Rounds uint64 `help:"How many rounds more than the job was to have. 0: a job that was stopped is brought to the end that it was to have." default:"0" placeholder:"N"`
}

// Help is what --help explains.
func (jobMore) Help() string {
	return `A job that was stopped after round 5 of 10 trains five more without --rounds, and six more with --rounds 1. One that has
finished wants --rounds; its further rounds are counted after its evaluation, and it publishes another release.

Example: choir job continue purchase --rounds 10`
}

// Run continues the job.
func (c *jobMore) Run(ctx context.Context, t *terminal) error {
	if c.Rounds > 1e6 {
		return &usageError{fmt.Sprintf("--rounds is %d, want 0 to 1000000", c.Rounds), ""}
	}
	err := c.control(ctx, t, state.ActionContinue, c.Rounds, "goes on")
	if err != nil && strings.Contains(err.Error(), "for no rounds") {
		return &hinted{err, "say how many more with --rounds N"}
	}
	return err
}

// readSmall reads a file that a job names, of at most limit bytes.
func readSmall(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return slices.Clip(b), err
}
