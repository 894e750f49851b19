// Builds dist/: the library in CommonJS and, for each entry point in package.json's "exports", a thin ES module around it.
// Both module systems must share one implementation. With a copy for each, a program that uses both would have two
// AsyncLocalStorages, so that after() misses the other copy's middleware, and two classes named BackgroundTasksError.

import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const root = fileURLToPath(new URL('..', import.meta.url));

rmSync(join(root, 'dist'), { recursive: true, force: true });
const program = compile();
for (const entryPoint of Object.values(readPackage().exports)) {
  if (typeof entryPoint !== 'string') wrap(entryPoint);
}

function readPackage() {
  return JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
}

function compile() {
  const host = { ...ts.sys, onUnRecoverableConfigFileDiagnostic: (diagnostic) => fail([diagnostic]) };
  const { fileNames, options, errors } = ts.getParsedCommandLineOfConfigFile(
    join(root, 'tsconfig.build.json'),
    undefined,
    host,
  );
  const compiled = ts.createProgram({ rootNames: fileNames, options, configFileParsingDiagnostics: errors });
  const diagnostics = [...ts.getPreEmitDiagnostics(compiled), ...compiled.emit().diagnostics];
  if (diagnostics.length > 0) fail(diagnostics);
  return compiled;
}

function fail(diagnostics) {
  const host = { ...ts.sys, getCanonicalFileName: (name) => name, getNewLine: () => '\n' };
  console.error(ts.formatDiagnostics(diagnostics, { ...host, getCurrentDirectory: () => root }));
  process.exit(1);
}

/** Writes the ES module and its types beside the CommonJS that they export. */
function wrap(entryPoint) {
  const commonjs = entryPoint.require.default;
  const names = namesOf(commonjs.replace('./dist/', 'lib/').replace(/\.js$/, '.ts'));
  const from = `'./${basename(commonjs)}';\n`;
  writeFileSync(join(root, entryPoint.import.default), `export { ${names.join(', ')} } from ${from}`);
  writeFileSync(join(root, entryPoint.import.types), `export * from ${from}`);
}

/** What a source file exports at run time. Found without loading it, which may take an optional peer or a newer Node. */
function namesOf(source) {
  const checker = program.getTypeChecker();
  const module = checker.getSymbolAtLocation(program.getSourceFile(join(root, source)));
  return checker
    .getExportsOfModule(module)
    .filter((symbol) => isValue(checker, symbol))
    .map((symbol) => symbol.name)
    .sort();
}

function isValue(checker, symbol) {
  if (symbol.declarations.some(ts.isTypeOnlyExportDeclaration)) return false;
  const target = symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
  return (target.flags & ts.SymbolFlags.Value) !== 0;
}
