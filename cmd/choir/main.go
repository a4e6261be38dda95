// Command choir is federated learning for fleets of edge nodes. `choir demo` shows the whole system on this machine.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"choir.example/privacy/seal"

	"github.com/alecthomas/kong"

	"choir.example/model/kernel"
)

// cli is the command line; each command lies in a file of its own.
type cli struct {
	Demo        demoCommand        `cmd:"" help:"Run the whole system on this machine, end to end."`
	Coordinator coordinatorCommand `cmd:"" help:"Run a replica of the cluster."`
	Node        nodeCommand        `cmd:"" help:"Run an edge node, or show how it is doing."`
	Token       tokenCommand       `cmd:"" help:"Tokens that admit nodes and coordinators."`
	Credential  credentialCommand  `cmd:"" help:"Credentials of operators, officers and auditors."`
	Cluster     clusterCommand     `cmd:"" help:"Coordinators and nodes: who lives, who may join, who must leave."`
	Job         jobCommand         `cmd:"" help:"Train: submit jobs and follow them."`
	Train       trainCommand       `cmd:"" help:"Train in one place, without a federation: the central baseline."`
	Simulate    simulateCommand    `cmd:"" help:"Run experiments: whole federations in one process, round by round."`
	Model       modelCommand       `cmd:"" help:"Released models."`
	Data        dataCommand        `cmd:"" help:"The private data of the node on this machine."`
	Predict     predictCommand     `cmd:"" help:"Ask the node on this machine for a prediction."`
	Feedback    feedbackCommand    `cmd:"" help:"Tell the node on this machine what really happened."`
	Console     consoleCommand     `cmd:"" help:"Read-only pages of the cluster in a browser."`
	Audit       auditCommand       `cmd:"" help:"Check what a federation did."`
	Version     versionCommand     `cmd:"" help:"Print the version."`
	Completion  completionCommand  `cmd:"" help:"Print a script that completes commands in a shell."`
}

// Exit codes.
const (
	exitOK    = 0
	exitFail  = 1 // what was asked for did not happen
	exitUsage = 2 // it was asked for wrongly
)

// terminal is what a command talks to: data on out, talk on err.
type terminal struct {
	out, err io.Writer
	work     int // how hard passphrases that are set here are to guess (seal.Lock); 0, but for tests
}

// usageError is wrong usage that only the command itself can notice.
type usageError struct {
	text string
	hint string
}

func (e *usageError) Error() string { return e.text }

// hinted is an error whose cure is known.
type hinted struct {
	err  error
	hint string
}

func (e *hinted) Error() string { return e.err.Error() }
func (e *hinted) Unwrap() error { return e.err }

// errSilent ends with exit code 1 after the command has said all there is to say.
var errSilent = errors.New("")

func main() { os.Exit(process(&terminal{out: os.Stdout, err: os.Stderr})) }

// process runs what the command line of this process asks for and returns its exit code.
func process(t *terminal) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	return run(ctx, os.Args[1:], t)
}

// run parses the arguments, runs the command and returns the exit code.
func run(ctx context.Context, args []string, t *terminal) int {
	if err := kernel.Check(); err != nil {
		return complain(t.err, &usageError{err.Error(), "unset CHOIR_KERNEL: choir then takes the fastest"})
	}
	var c cli
	exited := -1
	parser, err := kong.New(&c, kong.Name("choir"), kong.UsageOnError(), kong.Writers(t.out, t.err),
		kong.Description("Federated learning for fleets of edge nodes: many voices, one song."),
		kong.Exit(func(code int) { exited = code }), kong.ConfigureHelp(kong.HelpOptions{Compact: true}), kong.Help(help))
	if err != nil {
		return complain(t.err, err)
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	k, err := parser.Parse(joined(args))
	if exited >= 0 {
		return exited
	}
	if err != nil {
		fmt.Fprintf(t.err, "choir: error: %v\nhint: choir --help lists the commands, choir COMMAND --help their flags\n", err)
		return exitUsage
	}
	k.BindTo(ctx, (*context.Context)(nil))
	return complain(t.err, k.Run(t))
}

// joined writes `--nodes -1` as `--nodes=-1`. No flag is a digit: it is the value, which its command knows how to judge.
func joined(args []string) (out []string) {
	for i, arg := range args {
		negative := len(arg) > 1 && arg[0] == '-' && arg[1] >= '0' && arg[1] <= '9'
		if i > 0 && negative && len(args[i-1]) > 2 && strings.HasPrefix(args[i-1], "--") && !strings.Contains(args[i-1], "=") {
			out[len(out)-1] += "=" + arg
			continue
		}
		out = append(out, arg)
	}
	return out
}

// help explains the command that is selected. Of one that does something by itself and has commands below it, such as
// choir node, it explains what it does, and names those.
func help(options kong.HelpOptions, ctx *kong.Context) error {
	n := ctx.Selected()
	if n == nil || n.DefaultCmd == nil {
		return kong.DefaultHelpPrinter(options, ctx)
	}
	run, err := kong.Trace(ctx.Kong, strings.Fields(n.DefaultCmd.Path()))
	if err != nil {
		return err
	}
	if err := kong.DefaultHelpPrinter(options, run); err != nil {
		return err
	}
	fmt.Fprintln(ctx.Stdout, "\nCommands:")
	for _, below := range n.Children {
		if below != n.DefaultCmd {
			fmt.Fprintf(ctx.Stdout, "  %s    %s\n", below.Path(), below.Help)
		}
	}
	return nil
}

// complain says what went wrong and returns the exit code.
func complain(errs io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	code := exitFail
	hint := ""
	var usage *usageError
	var cure *hinted
	var exposed *seal.ExposedError
	switch {
	case errors.Is(err, errSilent):
		return exitFail
	case errors.As(err, &exposed): // first: whatever else was to be done, it is not the cure
		hint = exposed.Cure()
	case errors.As(err, &usage):
		code, hint = exitUsage, usage.hint
	case errors.As(err, &cure):
		hint = cure.hint
	}
	fmt.Fprintf(errs, "choir: error: %s\n", plain(err))
	if hint != "" {
		fmt.Fprintf(errs, "hint: %s\n", hint)
	}
	return code
}
