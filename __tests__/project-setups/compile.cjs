// Compiles projects as tsc does, one after the other: node compile.cjs <the compiler's package> <folder>… What they have in common
// is parsed once. Of declarations, those of the library are checked, and not those of Node.js and Express.

const { join, sep } = require('node:path');

const [compiler, ...projects] = process.argv.slice(2);
const ts = require(compiler);

/** Parsed files, by their path and by how they were parsed. */
const parsed = new Map();

function compile(project) {
  const host = { ...ts.sys, onUnRecoverableConfigFileDiagnostic: fail };
  const { fileNames, options, errors } = ts.getParsedCommandLineOfConfigFile(
    join(project, 'tsconfig.json'),
    undefined,
    host,
  );
  const program = ts.createProgram(fileNames, options, sharing(options));
  const files = program.getSourceFiles().filter(({ fileName }) => isChecked(fileName, fileNames));
  return [
    ...errors,
    ...program.getOptionsDiagnostics(),
    ...program.getGlobalDiagnostics(),
    ...files.flatMap((file) => [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)]),
    // One by one: before it emits all at once, the compiler checks all that there is.
    ...fileNames.flatMap((fileName) => program.emit(program.getSourceFile(fileName)).diagnostics),
  ];
}

function isChecked(fileName, fileNames) {
  return fileNames.includes(fileName) || fileName.includes('/express-background-tasks/');
}

function sharing(options) {
  const host = ts.createCompilerHost(options);
  const { getSourceFile } = host;
  host.getSourceFile = (fileName, how, ...rest) => {
    if (!fileName.endsWith('.d.ts')) return getSourceFile(fileName, how, ...rest);
    const key = [fileName, how.languageVersion, how.impliedNodeFormat, options.module, options.moduleResolution].join();
    if (!parsed.has(key)) parsed.set(key, getSourceFile(fileName, how, ...rest));
    return parsed.get(key);
  };
  return host;
}

function fail(diagnostic) {
  throw new Error(ts.flattenDiagnosticMessageText(diagnostic.messageText, '\n'));
}

const said = Object.fromEntries(
  projects.map((project) => [
    project,
    compile(project).map(({ file, messageText }) => {
      const text = ts.flattenDiagnosticMessageText(messageText, '\n');
      return file === undefined ? text : `${file.fileName.split(sep).at(-1)}: ${text}`;
    }),
  ]),
);
console.log(JSON.stringify(said));
