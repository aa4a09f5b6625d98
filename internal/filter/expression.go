package filter

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/checker"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"

	"github.com/eventhose/eventhose"
)

// A tenant writes the expression and its events' data, and both may be hostile. Three walls bound what they cost:
// what may be saved at all (size, nesting, constant patterns, the static estimate), what one evaluation may spend
// (the cost limit), and a deadline as the last resort. CEL's own accounting is blind to the sizes behind dyn
// values, and data is dyn: actualCost charges for what is really there.

// Limits of expressions.
const (
	// MaxPattern is the longest regular expression, in bytes.
	MaxPattern = 512
	// MaxPatterns is how many regular expressions one expression holds.
	MaxPatterns = 32
	// maxEstimate is the greatest cost that an expression may reach with typical data: two loops in each other, not three.
	maxEstimate = 1_000_000
	// maxCost is what one evaluation may spend. A unit is some 0.1 µs.
	maxCost = 250_000
	// maxTime is the deadline of an evaluation with a loop.
	maxTime = time.Second

	maxNodes       = 5_000
	maxDepth       = 100
	maxProgramSize = 2_000

	// typicalItems and typicalText are the sizes that the static estimate assumes of data.
	typicalItems = 100
	typicalText  = 1_000
)

var environment = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.Variable("type", cel.StringType),
		cel.Variable("key", cel.StringType),
		cel.Variable("id", cel.StringType),
		cel.Variable("time", cel.TimestampType),
		cel.Variable("version", cel.StringType),
		cel.Variable("attributes", cel.MapType(cel.StringType, cel.StringType)),
		cel.Variable("data", cel.DynType),
		cel.CrossTypeNumericComparisons(true),
		cel.ParserExpressionSizeLimit(eventhose.MaxExpression),
		cel.ParserRecursionLimit(maxDepth),
		cel.ParserErrorRecoveryLimit(4),
		cel.ExpressionNodeLimit(maxNodes),
		cel.RegexProgramSizeLimit(maxProgramSize),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals()),
	)
})

// expression is a compiled CEL expression.
type expression struct {
	program cel.Program
	// loops says that it holds a comprehension, which is the only place where CEL looks at its context.
	loops bool
}

// compileExpression answers CodeInvalid for field filter.expression.
func compileExpression(text string) (*expression, error) {
	env, err := environment()
	if err != nil {
		return nil, fmt.Errorf("make the CEL environment: %w", err)
	}
	checked, issues := env.Compile(text)
	if issues.Err() != nil {
		return nil, invalidAt(issues.Errors())
	}
	if out := checked.OutputType(); !out.IsExactType(cel.BoolType) {
		e := eventhose.Invalid("filter.expression", "must yield a boolean, not %s", out)
		e.Fix = `compare the value, as in data.active == true`
		return nil, e
	}
	loops, err := checkShape(checked.NativeRep().Expr())
	if err != nil {
		return nil, err
	}
	estimate, err := env.EstimateCost(checked, estimator{})
	if err != nil {
		return nil, eventhose.Invalid("filter.expression", "its cost cannot be estimated: %v", err)
	}
	if estimate.Max > maxEstimate {
		e := eventhose.Invalid("filter.expression", "may cost too much to evaluate")
		e.Fix = "use fewer loops within loops and shorter regular expressions"
		return nil, e
	}
	program, err := env.Program(checked,
		cel.EvalOptions(cel.OptOptimize),
		cel.CostTracking(actualCost{}),
		cel.CostLimit(maxCost),
		cel.InterruptCheckFrequency(100),
	)
	if err != nil {
		return nil, eventhose.Invalid("filter.expression", "%v", err)
	}
	return &expression{program: program, loops: loops}, nil
}

// invalidAt says where the first issue is and what.
func invalidAt(issues []*cel.Error) error {
	if len(issues) == 0 {
		return eventhose.Invalid("filter.expression", "is not a CEL expression")
	}
	first := issues[0]
	message := strings.TrimSpace(first.Message)
	if first.Location == nil || first.Location.Line() < 1 {
		return eventhose.Invalid("filter.expression", "%s", message)
	}
	return eventhose.Invalid("filter.expression", "line %d, column %d: %s", first.Location.Line(), first.Location.Column()+1, message)
}

// checkShape reports whether the expression loops, and refuses regular expressions that are computed, long or many.
func checkShape(e ast.Expr) (loops bool, err error) {
	patterns := 0
	ast.PostOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.ComprehensionKind:
			loops = true
		case ast.CallKind:
			call := e.AsCall()
			if call.FunctionName() != overloads.Matches || err != nil {
				return
			}
			patterns++
			args := call.Args()
			pattern := args[len(args)-1]
			if pattern.Kind() != ast.LiteralKind {
				err = eventhose.Invalid("filter.expression", "a regular expression must be a literal")
				return
			}
			if text, ok := pattern.AsLiteral().(types.String); !ok || len(text) > MaxPattern {
				err = eventhose.Invalid("filter.expression", "a regular expression must be at most %d bytes", MaxPattern)
			} else if patterns > MaxPatterns {
				err = eventhose.Invalid("filter.expression", "must hold at most %d regular expressions", MaxPatterns)
			}
		}
	}))
	return loops, err
}

// holds evaluates. What the expression cannot be applied to (a field that is missing, a text where a number should
// be) does not match; what passes a limit is an error.
func (x *expression) holds(v *View) (bool, error) {
	var out ref.Val
	var err error
	if x.loops {
		ctx, cancel := context.WithTimeout(context.Background(), maxTime)
		defer cancel()
		out, _, err = x.program.ContextEval(ctx, v)
	} else {
		out, _, err = x.program.Eval(v)
	}
	if err != nil {
		var ordinary *types.Err
		if errors.As(err, &ordinary) && !errors.Is(err, interpreter.InterruptError{}) {
			return false, nil
		}
		var cancelled interpreter.EvalCancelledError
		if errors.As(err, &cancelled) || errors.Is(err, interpreter.InterruptError{}) {
			return false, &eventhose.Error{Code: eventhose.CodeLimit, Field: "filter.expression",
				Message: "costs too much on this event", Fix: "use fewer loops and look at less of the data", Err: err}
		}
		return false, fmt.Errorf("evaluate filter expression: %w", err)
	}
	return out == types.True, nil
}

// estimator tells the static cost estimate how large things are.
type estimator struct{}

func (estimator) EstimateSize(node checker.AstNode) *checker.SizeEstimate {
	size := checker.SizeEstimate{Max: typicalText}
	switch path := node.Path(); {
	case node.Type().Kind() == types.ListKind || node.Type().Kind() == types.MapKind:
		size.Max = typicalItems
	case len(path) == 1 && path[0] == "type":
		size.Max = eventhose.MaxType
	case len(path) == 1 && path[0] == "key":
		size.Max = eventhose.MaxKey
	case node.Type().Kind() == types.DynKind:
		// It may be a list or a text. What loops over it takes it for a list.
		size.Max = typicalItems
	}
	return &size
}

func (estimator) EstimateCallCost(string, string, *checker.AstNode, []checker.AstNode) *checker.CallEstimate {
	return nil
}

// actualCost charges calls by the sizes of their real arguments.
type actualCost struct{}

func (actualCost) CallCost(function, _ string, args []ref.Val, _ ref.Val) *uint64 {
	cost := uint64(1)
	switch function {
	case operators.Equals, operators.NotEquals:
		cost += min(weight(args[0], maxCost), weight(args[1], maxCost))
	case operators.In, operators.OldIn:
		if l, ok := args[1].(traits.Lister); ok {
			cost += uint64(l.Size().(types.Int))
			if inner := weight(args[0], maxCost); inner > 1 {
				cost += min(weight(l, maxCost), saturate(cost, inner))
			}
		}
	case overloads.Matches:
		cost += saturate(weight(args[0], maxCost), uint64(len(text(args[1]))/4))
	case overloads.Contains:
		cost += saturate(weight(args[0], maxCost), weight(args[1], maxCost))
	case overloads.TimeGetFullYear, overloads.TimeGetMonth, overloads.TimeGetDayOfYear, overloads.TimeGetDate,
		overloads.TimeGetDayOfMonth, overloads.TimeGetDayOfWeek, overloads.TimeGetHours, overloads.TimeGetMinutes,
		overloads.TimeGetSeconds, overloads.TimeGetMilliseconds:
		if len(args) > 1 {
			cost += 200 // it loads a time zone
		}
	default:
		for _, a := range args {
			cost += uint64(len(text(a)) / 10)
		}
	}
	return &cost
}

func text(v ref.Val) string {
	switch v := v.(type) {
	case types.String:
		return string(v)
	case types.Bytes:
		return string(v)
	}
	return ""
}

// weight counts the values in v and a tenth of their texts, up to limit.
func weight(v ref.Val, limit uint64) uint64 {
	n := 1 + uint64(len(text(v))/10)
	switch v := v.(type) {
	case traits.Mapper:
		for it := v.Iterator(); n < limit && it.HasNext() == types.True; {
			k := it.Next()
			n += weight(k, limit-n) + weight(v.Get(k), limit-n)
		}
	case traits.Lister:
		for it := v.Iterator(); n < limit && it.HasNext() == types.True; {
			n += weight(it.Next(), limit-n)
		}
	}
	return n
}

func saturate(a, b uint64) uint64 {
	if b != 0 && a > math.MaxUint64/b {
		return math.MaxUint64 / 2
	}
	return a * b
}
