package filter

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"strings"
	"sync"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/interpreter"

	"github.com/eventhose/eventhose"
)

// A tenant writes the expression and its events' data, and both may be hostile. Three walls bound what they cost:
// what may be saved at all (size, nesting, constant patterns, the static estimate), what one evaluation may spend
// (cost.go), and a deadline as the last resort.

// Limits of expressions.
const (
	// MaxPattern is the longest regular expression, in bytes.
	MaxPattern = 512
	// MaxPatterns is how many regular expressions one expression holds.
	MaxPatterns = 32
	// maxInstructions bounds what one regular expression compiles to.
	maxInstructions = 2_000

	maxNodes = 5_000
	maxDepth = 100
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
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals()),
	)
})

// expression is a compiled CEL expression.
type expression struct{ program cel.Program }

// compileExpression answers CodeInvalid for field filter.expression.
func compileExpression(text string) (*expression, error) {
	env, err := environment()
	if err != nil {
		return nil, fmt.Errorf("make the CEL environment: %w", err)
	}
	if !utf8.ValidString(text) {
		return nil, eventhose.Invalid("filter.expression", "must be UTF-8")
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
	if err := checkPatterns(checked.NativeRep().Expr()); err != nil {
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
	program, err := env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CustomDecoratorV2(charge))
	if err != nil {
		return nil, eventhose.Invalid("filter.expression", "%v", err)
	}
	return &expression{program}, nil
}

// invalidAt says where the first issue is and what.
func invalidAt(issues []*cel.Error) error {
	if len(issues) == 0 {
		return eventhose.Invalid("filter.expression", "is not a CEL expression")
	}
	first := issues[0]
	message := strings.TrimSuffix(strings.TrimSpace(first.Message), " (in container '')")
	e := eventhose.Invalid("filter.expression", "%s", message)
	if first.Location != nil && first.Location.Line() >= 1 {
		e.Message = fmt.Sprintf("line %d, column %d: %s", first.Location.Line(), first.Location.Column()+1, message)
	}
	if strings.HasPrefix(message, "undeclared reference") {
		e.Fix = "an event has type, key, id, time, version, attributes and data, as in data.amount > 1000"
	}
	return e
}

// checkPatterns refuses regular expressions that are computed, long or many.
func checkPatterns(e ast.Expr) (err error) {
	patterns := 0
	ast.PostOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
		if err != nil || e.Kind() != ast.CallKind || e.AsCall().FunctionName() != overloads.Matches {
			return
		}
		patterns++
		args := e.AsCall().Args()
		pattern := args[len(args)-1]
		if pattern.Kind() != ast.LiteralKind {
			err = eventhose.Invalid("filter.expression", "a regular expression must be a literal")
		} else if text, ok := pattern.AsLiteral().(types.String); !ok || len(text) > MaxPattern {
			err = eventhose.Invalid("filter.expression", "a regular expression must be at most %d bytes", MaxPattern)
		} else if patterns > MaxPatterns {
			err = eventhose.Invalid("filter.expression", "must hold at most %d regular expressions", MaxPatterns)
		} else if instructions(string(text)) > maxInstructions {
			err = eventhose.Invalid("filter.expression", "a regular expression is too large: its repetitions multiply")
		}
	}))
	return err
}

// instructions answers how large a regular expression is once compiled, 0 if it is not one. CEL's own limit on that
// (cel.RegexProgramSizeLimit in 0.32.0) panics on repetitions such as a{2}.
func instructions(pattern string) int {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return 0
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return 0
	}
	return len(program.Inst)
}

// holds evaluates. What the expression cannot be applied to (a field that is missing, a text where a number should
// be) does not match; what passes a limit is an error.
func (x *expression) holds(v *View) (bool, error) {
	out, _, err := x.program.Eval(&evaluation{View: v})
	var inapplicable *types.Err
	var cancelled interpreter.EvalCancelledError
	switch {
	case err == nil:
		return out == types.True, nil
	case errors.As(err, &cancelled):
		return false, &eventhose.Error{Code: eventhose.CodeLimit, Field: "filter.expression",
			Message: "costs too much on this event", Fix: "use fewer loops and look at less of the data", Err: err}
	case errors.As(err, &inapplicable):
		return false, nil
	}
	return false, fmt.Errorf("evaluate filter expression: %w", err)
}
